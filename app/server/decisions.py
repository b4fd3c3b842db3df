"""What a person can decide about a run on a page: stop it, accept its image, answer its question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.agent.select import find_retrieval
from pleinair.app.chat.threads import Threads
from pleinair.app.paths import Paths
from pleinair.app.runs.events import has_image
from pleinair.app.runs.facts import is_by_program
from pleinair.app.runs.row import ACCEPT, CANCEL, Run
from pleinair.app.runs.tables import OPEN, QUEUED, RUNNING, WAITING
from pleinair.app.storyboard.words import link
from pleinair.app.trace.trace import license_text, score_text
from pleinair.tools.retrieval.item import id_key
from pleinair.tools.types import Concept, Hit, Reference, Retrieval

HIT, IMAGE, NONE = "hit:", "image:", "none"  # what a choice begins with, or is
TEXTS = {
    QUEUED: "In the queue.",
    RUNNING: "At work.",
    WAITING: "Waits for your approval. Nothing is computed and no time is counted meanwhile.",
    "answered": "Your answer has been received; the run goes on.",
    "by_program": "The Python program that started this run goes on with it.",
    "stopping": "Stops at its next step; its best image stays.",
    "accepting": "Ends with its best image at the next step.",
}
Fields = Mapping[str, str]  # of a form


@dataclass(frozen=True)
class HitCard:
    """Hit of the library that may show a concept."""

    hit: Hit
    value: str  # of the choice
    image: str  # address of its thumbnail
    name: str  # of its file
    score: str
    standing: str  # beside the threshold
    is_usable: bool
    license: str
    source: str  # web address, "" if it has none
    is_vetoed: bool

    @property
    def key(self) -> str:
        """Return the name of the hit in names of fields."""
        return hit_key(self.hit)


@dataclass(frozen=True)
class ConceptFields:
    """Fields of one concept in the form of an approval."""

    number: int
    name: str  # as typed
    note: str  # why there is no hit to choose, "" if there is one
    cards: tuple[HitCard, ...]
    choice: str  # value of the card, `none` or "" if nothing is chosen
    image: str = ""  # SHA-256 of an upload that was stored before another fault
    image_name: str = ""
    is_kept: bool = False  # as a pin of the thread


@dataclass(frozen=True)
class ApprovalForm:
    """Form of the question of a run."""

    question: ApprovalRequest
    prompt: str
    concepts: tuple[ConceptFields, ...]
    can_keep: bool  # whether the run belongs to a chat thread, which can have pins
    fault: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)  # by field

    @property
    def key(self) -> str:
        """Return the name of the question."""
        return self.question.key


@dataclass(frozen=True)
class RunDecisions:
    """State of a run in words, and what may be decided about it."""

    run_id: str
    state: str
    can_stop: bool
    can_accept: bool
    form: ApprovalForm | None

    @property
    def text(self) -> str:
        """Return the state as a sentence."""
        return TEXTS.get(self.state, f"Ended: {self.state}.")

    @property
    def key(self) -> str:
        """Return a value that changes with what may be decided."""
        return f"{self.state}-{self.can_stop:d}{self.can_accept:d}"


def decisions_of(run: Run, places: Paths) -> RunDecisions:
    """Return what may be decided about a run."""
    question = run.question
    form = approval_form(run, question, places) if question else None
    is_free = run.status in OPEN and not run.cancel_requested
    can_accept = is_free and has_image(places.events(run.id))
    return RunDecisions(run.id, _state(run), is_free and not question, can_accept, form)


def _state(run: Run) -> str:
    if run.status not in OPEN:
        return run.status
    if run.cancel_requested:
        return {CANCEL: "stopping", ACCEPT: "accepting"}[run.cancel_requested]
    if run.status == QUEUED and is_by_program(run):
        return "by_program"
    return "answered" if run.answer_json and run.status != WAITING else run.status


def approval_form(
    run: Run,
    question: ApprovalRequest,
    places: Paths,
    fields: Fields | None = None,
    faults: Mapping[str, str] | None = None,
) -> ApprovalForm:
    """Return the form of a question, with what was typed and its faults, if it comes back."""
    faults = faults or {}
    concepts = tuple(
        _concept_fields(run.id, number, concept, question, fields)
        for number, concept in enumerate(question.concepts)
    )
    return ApprovalForm(
        question=question,
        prompt=question.prompt if fields is None else fields.get("prompt", ""),
        concepts=concepts,
        can_keep=question.before == "references" and Threads(places).of_run(run.id) is not None,
        fault=faults.get("", "") or question.fault,
        faults=faults,
    )


def _concept_fields(
    run_id: str, number: int, concept: Concept, question: ApprovalRequest, fields: Fields | None
) -> ConceptFields:
    retrieval = find_retrieval(concept.name, question.retrievals)
    reference = find_reference(question, concept.name)
    proposed = reference.hit if reference else None
    typed = fields or {}
    cards = tuple(
        _card(run_id, hit, retrieval, f"veto-{number}-{hit_key(hit)}" in typed)
        for hit in (retrieval.hits if retrieval else ())
    )
    if reference and reference.hit.id not in {card.hit.id for card in cards}:  # an input image
        card = _card(run_id, reference.hit, None, f"veto-{number}-{hit_key(reference.hit)}" in typed)
        image = f"/runs/{run_id}/images/{reference.picture.sha256}.png"
        cards = (replace(card, image=image, name=reference.hit.caption or "your image"), *cards)
    chosen = f"{HIT}{proposed.id}" if proposed else NONE if question.omits else ""
    return ConceptFields(
        number=number,
        name=concept.name if fields is None else typed.get(f"name-{number}", ""),
        note="" if proposed else _note(retrieval, question),
        cards=cards,
        choice=chosen if fields is None else typed.get(f"use-{number}", ""),
        image=typed.get(f"image-{number}", ""),
        image_name=typed.get(f"image-name-{number}", ""),
        is_kept=f"keep-{number}" in typed,
    )


def find_reference(question: ApprovalRequest, concept: str) -> Reference | None:
    """Return the reference that is proposed for a concept; one may show several concepts."""
    references = (reference for reference in question.references if reference.concept == concept)
    return next(references, None)


def _note(retrieval: Retrieval | None, question: ApprovalRequest) -> str:
    """Return why no reference is proposed for a concept."""
    if retrieval is None:
        return "No reference is planned for it."
    hits = {hit.id for hit in retrieval.hits if retrieval.accepts(hit)}
    if shared := [reference.concept for reference in question.references if reference.hit.id in hits]:
        return f"The reference of “{shared[0]}” shows it too."
    if not retrieval.hits:
        return "Your library has nothing for it."
    if retrieval.abstained or not any(map(retrieval.accepts, retrieval.hits)):
        return "Your library has nothing above the threshold for it."
    return "No reference is planned for it."


def _card(run_id: str, hit: Hit, retrieval: Retrieval | None, is_vetoed: bool) -> HitCard:
    return HitCard(
        hit=hit,
        value=f"{HIT}{hit.id}",
        image=hit_address(run_id, hit),
        name=PurePosixPath(hit.id).name,
        score=score_text(hit),
        standing=_standing(hit, retrieval),
        is_usable=not (retrieval and hit.id in retrieval.unavailable),
        license=license_text(hit),
        source=link(hit),
        is_vetoed=is_vetoed,
    )


def _standing(hit: Hit, retrieval: Retrieval | None) -> str:
    if retrieval is None:
        return ""
    if hit.id in retrieval.unavailable:
        return "not readable any more"
    if retrieval.threshold is None or retrieval.threshold <= -1 or hit.score_kind == "rrf":
        return "" if retrieval.accepts(hit) else "under the threshold"
    side, of_query = (
        "above" if retrieval.accepts(hit) else "under",
        " of this query" * bool(retrieval.query_scores),
    )
    return f"{side} the threshold {retrieval.threshold:.2f}{of_query}"


def hit_key(hit: Hit) -> str:
    """Return the name of a hit in addresses and fields."""
    return id_key(hit.id)


def hit_address(run_id: str, hit: Hit) -> str:
    """Return the address of a small copy of a library image that a run retrieved."""
    return f"/runs/{run_id}/hits/{hit_key(hit)}.webp"
