"""A run told for a terminal or as JSON: a block an attempt, then the steps by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pleinair.app.api import find, home
from pleinair.app.runs.events import read
from pleinair.app.runs.results import credit
from pleinair.app.runs.store import Run
from pleinair.app.trace.steps import Step, steps_of
from pleinair.app.trace.story import (
    SIGNS,
    Scene,
    Story,
    came_across,
    counted,
    placed,
    sent_part,
    spent,
    tell,
)
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Hit, Picture, Row, Usage

Lines = Iterator[tuple[str, str]]  # a label, and what it says


class Account:
    """Hold a run's story with its steps; one that has not begun is `BadInput`."""

    def __init__(self, name: str) -> None:
        self.run: Run = find(name)
        self.story: Story = tell(read(home().events(self.run.id)))
        if not self.story.heading:
            raise BadInput(f"run {self.run.id}: nothing has happened yet (status: {self.run.status})")
        self.steps: list[Step] = _steps(self.run)
        self._store = ArtifactStore(home().run(self.run.id) / "pictures")

    def usage(self, number: int) -> list[Usage]:
        """List what was spent on one attempt: to prepare it, to draw it and to look at it."""
        return [one for step in self.steps if step.attempt == number for one in step.usage]

    def where(self, picture: Picture) -> str:
        """Say where a picture lies."""
        return self._store.path(picture)

    def lines(self) -> Lines:
        """Tell everything; a block begins with a label and no text."""
        yield from _heading(self)
        for scene in self.story.scenes:
            yield "", ""
            yield scene.title + (" ★ best" if scene.best else ""), ""
            yield from _attempt(scene, self)
        if self.steps:
            yield "", ""
            yield "Steps, for `pleinair trace fork --at`", ""
        for step in self.steps:
            yield " ".join(step.names), _done(step)

    def plain(self) -> dict[str, Any]:
        """Give the same as JSON values."""
        outcome = self.story.outcome
        return {
            **self.story.heading,
            "status": self.run.status,
            "reason": outcome.reason if outcome else "",
            "limit": outcome.limit if outcome else None,
            "concepts": [concept.model_dump() for concept in self.story.concepts],
            "attempts": [plain(scene, self) for scene in self.story.scenes],
            "usage": [one.model_dump() for one in self.story.usage],
            "steps": [_named(step) for step in self.steps],
        }


def _done(step: Step) -> str:
    """Say what a step was called for and what it spent."""
    cost = spent(step.usage) if step.usage else ""
    return "; ".join(filter(None, (", ".join(step.calls), cost))) or "nothing spent"


def _named(step: Step) -> dict[str, Any]:
    """Give a step as JSON values; calls where a driving model made any."""
    told = {"names": step.names, "attempt": step.attempt}
    return told | ({"calls": step.calls} if step.calls else {})


def _steps(run: Run) -> list[Step]:
    try:
        return steps_of(run, home())
    except BadInput:  # its graph is not installed any more; the log still tells the rest
        return []


def _heading(account: Account) -> Lines:
    """Tell what was asked, with which models, and how it ended."""
    story, known = account.story, account.story.heading
    ending = f"{story.outcome.ending}: {story.outcome.reason}" if story.outcome else account.run.status
    yield f"Run {known['run']}", ""
    yield "prompt", known["prompt"]
    yield "graph", f"{known['graph']}, seed {known['seed']}"
    if parent := known.get("parent"):
        yield "fork", f"of {parent['run']} at {parent['step']}"
    yield from known["models"].items()
    yield "concepts", ", ".join(concept.name for concept in story.concepts) or "none listed"
    yield "ending", ending
    yield "spent", story.spent


def _attempt(scene: Scene, account: Account) -> Lines:
    """Tell one attempt."""
    sent, usage = scene.attempt.request, account.usage(scene.attempt.number)
    yield "prompt", sent.prompt
    yield (
        "drawn",
        (
            f"seed {sent.seed}, {sent.width}×{sent.height}, {counted(sent.num_inference_steps, 'step')}, "
            f"guidance {sent.guidance_scale:g}, in {scene.attempt.seconds:.1f} s"
        ),
    )
    made = {"placed": placed(scene.attempt), "painted": scene.painted}
    yield from ((label, how) for label, how in made.items() if how)
    for one in sent.references:
        rank = scene.rank(one.concept, one.hit)
        facts = (f"{found(one.hit)}, {rank}", sent_part(one), _rights(one.hit))
        yield "reference", f"{one.concept} ← {'; '.join(filter(None, facts))}"
        yield from [("came across", share)] if (share := came_across(scene.attempt, one)) else []
    for retrieval in scene.retrievals:
        if retrieval.abstained:
            yield "not taken", f"{retrieval.concept}: {retrieval.reason}"
    for retrieval, rank_from_1, hit in scene.left:
        yield "not picked", f"{retrieval.concept} ← {found(hit)}, rank {rank_from_1}; {_rights(hit)}"
    yield "picture", account.where(scene.attempt.picture)
    for row in scene.rows:
        yield "ledger", _said(row)
    yield "decision", scene.decision
    if usage:
        yield "spent", spent(usage)


def found(hit: Hit) -> str:
    """Name a library picture with its score."""
    return f"{hit.id}, score {hit.score:.2f}"


def _rights(hit: Hit) -> str:
    """Say whose a library picture is."""
    return ", ".join(filter(None, (hit.license, hit.author, hit.source)))


def _said(row: Row) -> str:
    """Say one row of a ledger."""
    line = f"{SIGNS[row.status]} {row.concept}: {row.status} {row.confidence:.0%}"
    return f"{line}, {row.evidence}" if row.evidence else line


def plain(scene: Scene, account: Account) -> dict[str, Any]:
    """Give one attempt as JSON values."""
    number = scene.attempt.number
    return {
        **scene.attempt.model_dump(mode="json"),
        "best": scene.best,
        "painted": scene.painted,
        "credits": [credit(one) for one in scene.attempt.request.references],
        "not_picked": [
            {"concept": found.concept, "rank": rank, **hit.model_dump()} for found, rank, hit in scene.left
        ],
        "abstained": {one.concept: one.reason for one in scene.retrievals if one.abstained},
        "decision": scene.decision,
        "file": account.where(scene.attempt.picture),
        "usage": [one.model_dump() for one in account.usage(number)],
    }
