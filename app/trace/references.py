"""References of one image, changed for a fork: another hit, an input image, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pleinair.app.engines import declared_capabilities
from pleinair.app.libraries import open_library
from pleinair.app.paths import Paths
from pleinair.app.runs.request import require_input_images, store_input_images
from pleinair.app.runs.row import Run
from pleinair.app.settings import Settings
from pleinair.app.trace.steps import Step
from pleinair.app.trace.trace import Trace, trace_begun
from pleinair.tools.types import BadInput, Hit, Picture, Reference

INPUT = "given with a fork"  # source of an input image, in its hit
Choice = str | Picture  # id of a hit, "" for no reference, or an input image stored in the home


def concepts_of(trace: Trace, step: Step) -> dict[str, Reference | None]:
    """Return the concepts that an image can have references for, with those that it has."""
    references = step.image.references if step.image else ()
    current = {reference.concept: reference for reference in references}
    names = [*current, *(concept.name for concept in trace.concepts), *hits_of(trace)]
    return {name: current.get(name) for name in dict.fromkeys(names)}


def hits_of(trace: Trace) -> dict[str, list[Hit]]:
    """Return the hits of each concept in a run's retrievals, the newest first."""
    hits: dict[str, dict[str, Hit]] = {}
    for retrieval in reversed(trace.retrievals.values()):
        of_concept = hits.setdefault(retrieval.concept, {})
        for hit in retrieval.hits:
            of_concept.setdefault(hit.id, hit)
    return {concept: list(of_concept.values()) for concept, of_concept in hits.items()}


def changed_references(
    run: Run, step: Step, choices: Mapping[str, Choice], settings: Settings, places: Paths
) -> tuple[Reference, ...]:
    """Return the references of a step's image with those of some concepts exchanged; stores library images.

    Raises `BadInput` for a concept or hit that the run does not have, an image that is not stored, or more
    references than the generator takes; `PleinairError` for a library image that cannot be read.
    """
    trace = trace_begun(run, places)
    concepts, hits = concepts_of(trace, step), hits_of(trace)
    for concept, choice in choices.items():
        if concept not in concepts:
            accepted = ", ".join(concepts) or "none"
            raise BadInput(f"reference {concept!r}: no such concept; accepted: {accepted}")
        _require(concept, choice, hits.get(concept, ()), places)
    selected: dict[str, Choice | Reference] = {
        concept: choices.get(concept, reference or "") for concept, reference in concepts.items()
    }
    count = sum(map(bool, selected.values()))
    if count > (slots := declared_capabilities(settings).slots):
        raise BadInput(f"references: {count}; the generator takes {slots}")
    return tuple(
        choice if isinstance(choice, Reference) else _reference(concept, choice, hits, settings, places)
        for concept, choice in selected.items()
        if choice
    )


def _require(concept: str, choice: Choice, hits: Iterable[Hit], places: Paths) -> None:
    """Raise `BadInput` unless a choice is an image that is stored, a hit, or none."""
    if isinstance(choice, Picture):
        require_input_images([choice], places)
    elif choice and choice not in (ids := [hit.id for hit in hits]):
        accepted = ", ".join(ids) or "none was retrieved"
        raise BadInput(f"reference {concept!r}: {choice!r} is no hit of it; accepted: {accepted}")


def _reference(
    concept: str, choice: Choice, hits: Mapping[str, list[Hit]], settings: Settings, places: Paths
) -> Reference:
    """Return the reference of an input image, or of a hit after storing it."""
    if isinstance(choice, Picture):
        return Reference(concept=concept, hit=Hit(id=choice.sha256, score=1.0, source=INPUT), picture=choice)
    (picture,) = store_input_images([open_library(settings, places).picture(choice)], places)
    return Reference(
        concept=concept, hit=next(hit for hit in hits[concept] if hit.id == choice), picture=picture
    )
