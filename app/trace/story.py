"""A run's events, folded into the story that the storyboards tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pleinair.app.runs.events import Event
from pleinair.tools.images.crops import pixels
from pleinair.tools.types import (
    Attempt,
    Concept,
    Hit,
    Outcome,
    Reference,
    Repair,
    Retrieval,
    Row,
    Usage,
)

HEADING = ("run", "prompt", "graph", "seed", "parent", "models")
SNAPSHOTS = ("started", "resumed", "ended")
SIGNS = {"present": "●", "unsure": "◐", "missing": "○"}  # of a row's status
COUNTED = ("images", "mllm_calls", "tokens")


@dataclass
class Scene:
    """Hold one attempt: what was looked up for it, what came out, what was done next."""

    attempt: Attempt
    retrievals: list[Retrieval]
    earlier: list[Retrieval]  # of the attempts before
    decisions: tuple[str, ...]
    best: bool
    painted: str = ""  # what alone was painted anew; empty where the whole picture was drawn

    @property
    def title(self) -> str:
        """Name the scene."""
        return title(self.attempt)

    @property
    def decision(self) -> str:
        """Say what was done next, in one line."""
        return "; ".join(self.decisions)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Give the ledger's rows, none if nobody looked."""
        return self.attempt.ledger.rows if self.attempt.ledger else ()

    @property
    def left(self) -> list[tuple[Retrieval, int, Hit]]:
        """List the hits that were found and not picked, with their rank from 1."""
        used = {reference.hit.id for reference in self.attempt.request.references}
        ranked = [(found, rank, hit) for found in self.retrievals for rank, hit in enumerate(found.hits, 1)]
        return [(found, rank, hit) for found, rank, hit in ranked if hit.id not in used]

    def rank(self, concept: str, hit: Hit) -> str:
        """Give a used reference's rank in the look-up that found it."""
        known = (*self.retrievals, *self.earlier)
        ids = next(([one.id for one in found.hits] for found in known if found.concept == concept), [])
        return f"rank {ids.index(hit.id) + 1} of {len(ids)}" if hit.id in ids else "not looked up"


@dataclass
class Story:
    """Hold a whole run; unfinished ones have no outcome yet."""

    heading: dict[str, Any] = field(default_factory=dict)
    concepts: list[Concept] = field(default_factory=list)
    attempts: dict[int, Attempt] = field(default_factory=dict)
    retrievals: dict[int, dict[str, Retrieval]] = field(default_factory=dict)  # by attempt and concept
    usage: list[Usage] = field(default_factory=list)
    outcome: Outcome | None = None
    repairs: tuple[Repair, ...] = ()  # planned and not drawn yet
    began: float = 0.0
    until: float = 0.0

    @property
    def scenes(self) -> list[Scene]:
        """Give the attempts in their order."""
        return [self.scene(number) for number in sorted(self.attempts)]

    def scene(self, number: int) -> Scene:
        """Give one attempt."""
        best = self.outcome.best.number if self.outcome and self.outcome.best else -1
        found = [(at, one) for at, known in self.retrievals.items() for one in known.values()]
        return Scene(
            attempt=self.attempts[number],
            retrievals=[one for at, one in found if at == number],
            earlier=[one for at, one in reversed(found) if at < number],
            decisions=self.decisions(number),
            best=number == best,
            painted=self.painted(number),
        )

    def painted(self, number: int) -> str:
        """Say which box was painted anew in which picture, "" where the whole one was drawn."""
        repaint = self.attempts[number].request.inpaint
        if repaint is None:
            return ""
        known = (one for one in self.attempts.values() if one.picture == repaint.picture)
        names = (f"{'' if one.number else 'the '}{title(one).lower()}" for one in known)
        where = next(names, "an earlier picture")
        return f"Only the box of “{repaint.concept}” was painted anew; the rest is {where}."

    @property
    def spent(self) -> str:
        """Say what was spent, in words."""
        return spent(self.usage)

    def decisions(self, number: int) -> tuple[str, ...]:
        """Say what was done after an attempt, and why."""
        following = self.attempts.get(number + 1)
        if following and following.repairs:
            return tuple(said(repair) for repair in following.repairs)
        if following:
            return ("Drawn again.",)
        if self.outcome:
            return (_closed(self.outcome),)
        return tuple(said(repair) for repair in self.repairs) or ("Not decided yet.",)


def spent(usage: Sequence[Usage]) -> str:
    """Add usages up, in words."""
    total = {name: sum(getattr(one, name) for one in usage) for name in COUNTED}
    names = {"images": "picture", "mllm_calls": "question", "tokens": "token"}
    words = [counted(total[key], name) for key, name in names.items() if total[key] or key != "tokens"]
    paid = sum(one.usd for one in usage)
    words += [f"{paid:.4g} US dollars"] if paid else []
    return ", ".join([*words, f"{sum(one.seconds for one in usage):.1f} s"])


def counted(count: int, name: str) -> str:
    """Put a number before a noun."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _closed(outcome: Outcome) -> str:
    """Say with what a run ended; the reason of a refusal or fault can be long, and stands at the top."""
    ending = outcome.ending.capitalize()
    return f"{ending}." if outcome.ending in ("refused", "failed") else f"{ending}: {outcome.reason}"


def title(attempt: Attempt) -> str:
    """Name a picture; the first is a draft only where it was drawn from the words alone."""
    if attempt.number:
        return f"Attempt {attempt.number}"
    return "First picture" if attempt.request.references else "Draft"


def placed(attempt: Attempt) -> str:
    """Say how the model was placed, where it was not simply whole."""
    return "" if attempt.offload_levels in ((), ("whole",)) else " → ".join(attempt.offload_levels)


def said(repair: Repair) -> str:
    """Put a repair into words."""
    action = repair.action.replace("_", " ").capitalize()
    return f"{action} for “{repair.concept}”" + (f": {repair.why}" if repair.why else "")


def sent_part(reference: Reference) -> str:
    """Say how much of a reference was sent, "" where it was all of it."""
    if reference.crop is None:
        return ""
    size = reference.picture.width, reference.picture.height
    left, top, right, bottom = pixels(reference.crop, size)
    return f"cut to {right - left} × {bottom - top} of {size[0]} × {size[1]} pixels"


def came_across(attempt: Attempt, reference: Reference) -> str:
    """Say how much of a reference came across besides its concept, "" where nobody compared them."""
    own = [one for one in attempt.leaks if (one.concept, one.id) == (reference.concept, reference.hit.id)]
    if not own:
        return ""
    shares = {"background": own[0].background, "pose": own[0].pose, "whole": own[0].copied}
    return ", ".join(f"{part} {share:.0%}" for part, share in shares.items() if share is not None)


def tell(events: Sequence[Event]) -> Story:
    """Fold a run's events; a step that a crash made happen twice counts once."""
    story = Story()
    for event in events:
        story.began = story.began or event.at
        story.until = event.at
        _add(story, event)
    return story


def _add(story: Story, event: Event) -> None:
    data = event.data
    if event.kind in SNAPSHOTS:
        story.heading |= {key: data[key] for key in HEADING if key in data}
        story.usage = []  # a snapshot holds all of it
    if data.get("concepts"):
        story.concepts = [Concept.model_validate(one) for one in data["concepts"]]
    for one in data.get("attempts", ()):
        story.attempts[one["number"]] = Attempt.model_validate(one)
    for one in data.get("retrievals", ()):
        _add_retrieval(story, Retrieval.model_validate(one), event)
    story.usage += [Usage.model_validate(one) for one in data.get("usage", ())]
    if "repairs" in data:
        story.repairs = tuple(Repair.model_validate(one) for one in data["repairs"])
    if data.get("outcome"):
        story.outcome = Outcome.model_validate(data["outcome"])


def _serves(attempt: Attempt, found: Retrieval) -> bool:
    """Tell whether an attempt was to repair what a look-up was made for."""
    return any(repair.concept == found.concept for repair in attempt.repairs)


def _add_retrieval(story: Story, found: Retrieval, event: Event) -> None:
    """File a look-up under the attempt that it was made for; snapshots repeat most, and say no number."""
    if not any(known.get(found.concept) == found for known in story.retrievals.values()):
        number = min(event.attempt, max(story.attempts, default=event.attempt) + 1)
        if event.kind in SNAPSHOTS:
            number = min(
                (one.number for one in story.attempts.values() if _serves(one, found)), default=number
            )
        story.retrievals.setdefault(number, {})[found.concept] = found
