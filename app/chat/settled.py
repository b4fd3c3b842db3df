"""What a thread takes over from a run that has ended: the model's vetoes and pins, and input images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pleinair.agent.approval.types import Approval
from pleinair.agent.react.schemas import Pin
from pleinair.app.chat.messages import row_of
from pleinair.app.chat.thread import GRAPH, Decisions, Thread, TrayImage
from pleinair.app.chat.tray import with_image, without_pinned
from pleinair.app.paths import Paths
from pleinair.app.runs.history import state_of
from pleinair.app.runs.request import read_request
from pleinair.app.runs.store import Runs
from pleinair.app.runs.tables import OPEN
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact
from pleinair.tools.types import Reference, concept_key

if TYPE_CHECKING:
    from pleinair.agent.react.state import ReactState


def settled(thread: Thread, runs: Runs, places: Paths) -> Thread:
    """Return a thread after taking over what the run of its last message decided, once that has ended.

    What a person has changed since the message was sent stays changed.
    """
    if not thread.turns or thread.turns[-1].settled == thread.runs[-1]:
        return thread
    *earlier, message = thread.turns
    row = row_of(message.run, runs)
    if row is None or row.damage or row.status in OPEN:
        return thread
    base, request = message.base, read_request(row.request_json)
    state = state_of(row.id, places)
    if state and request.graph == GRAPH:
        theirs = _without_choices(decisions_of(state), state.approvals, base)
        thread, base = thread.with_decisions(_merged(base, thread.decisions, theirs)), theirs
    if state:
        sent = request.thread.given if request.thread else ()
        given = [*state.given, *state.images_of_answers]
        added = [reference for reference in given if reference not in sent]
        thread = without_pinned(with_given(thread, added, row.id, places))
    changed = message.model_copy(update={"settled": row.id, "base": base})
    return thread.model_copy(update={"turns": (*earlier, changed)})


def decisions_of(state: ReactState) -> Decisions:
    """Return the vetoes and pins of a run."""
    return Decisions(vetoes=tuple(state.vetoes), pins=tuple(state.pins))


def _without_choices(theirs: Decisions, approvals: Sequence[Approval], base: Decisions) -> Decisions:
    """Return the decisions of a run without what its approvals chose for this run only."""
    once = {concept: id for approval in approvals for concept, id in approval.hits.items()}
    pins = _by_concept(theirs)
    before = _by_concept(base)
    for concept, id in once.items():
        if concept in pins and pins[concept].hit.id == id:
            del pins[concept]
            pins |= {concept: before[concept]} if concept in before else {}
    return theirs.model_copy(update={"pins": tuple(pins.values())})


def _merged(base: Decisions, ours: Decisions, theirs: Decisions) -> Decisions:
    """Return the decisions of a run with what a person has changed since `base`."""
    before, now = set(base.vetoes), set(ours.vetoes)
    vetoes = (set(theirs.vetoes) | (now - before)) - (before - now)
    pins = _by_concept(theirs)
    pins_before, pins_now = _by_concept(base), _by_concept(ours)
    for concept in pins_before.keys() | pins_now.keys():
        if pins_before.get(concept) != pins_now.get(concept):
            pins.pop(concept, None)
            pins |= {concept: pins_now[concept]} if concept in pins_now else {}
    remaining = tuple(pin for pin in pins.values() if pin.hit.id not in vetoes)
    return Decisions(overrides=ours.overrides, vetoes=tuple(sorted(vetoes)), pins=remaining)


def _by_concept(decisions: Decisions) -> dict[str, Pin]:
    return {pin.concept: pin for pin in decisions.pins}


def with_given(thread: Thread, given: Sequence[Reference], run_id: str, places: Paths) -> Thread:
    """Return a thread with the input images of a run in its tray, such as those of an approval."""
    present = {(concept_key(image.concept), image.picture.sha256) for image in thread.tray}
    for reference in given:
        if (key := (concept_key(reference.concept), reference.picture.sha256)) in present:
            continue
        store = ArtifactStore(places.input_images)
        try:
            store.adopt(reference.picture, ArtifactStore(places.pictures(run_id)))
        except BadArtifact:
            continue
        present.add(key)
        number = thread.handles + 1
        fields: dict[str, Any] = reference.model_dump(include={"picture", "hit", "concept"})
        image = TrayImage(handle=f"@{number}", **fields)
        thread = with_image(thread.model_copy(update={"handles": number}), image)
    return thread
