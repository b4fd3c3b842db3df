"""Selection of references: which retrieved images get the generator's few slots, cropped and in order.

`select_references` is the selection of the loop and of the react graph; the graphs of the papers use its
steps. Candidates are the unused hits above the threshold. With a slot for every concept each takes its best
candidate. With fewer slots the choice is a budgeted cover: images that another one beats on every concept
are dropped (Pareto), then the one that serves the most uncovered concepts is taken until the slots are full.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pleinair.agent import ledger
from pleinair.agent.context import Context
from pleinair.agent.state import State
from pleinair.tools.images.crops import choose_crop
from pleinair.tools.images.reading import BadPicture
from pleinair.tools.retrieval.filters import Wrapper
from pleinair.tools.retrieve import open_image
from pleinair.tools.types import (
    INPUT_SOURCE,
    Attempt,
    Hit,
    NoLibrary,
    Picture,
    Reference,
    Repair,
    Retrieval,
    Retriever,
    Row,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.storage.artifacts import ArtifactStore

AnyState = TypeVar("AnyState", bound=State)
Built = TypeVar("Built")
Candidates = Mapping[str, Sequence[Hit]]  # concept -> its usable hits, best first
Scores = Mapping[str, float]  # concept -> score of one image for it

REFERENCE_ACTIONS = ("add_reference", "swap_reference")  # repairs that show the generator another image


@dataclass(frozen=True, slots=True)
class Pick:
    """Library image picked for one concept, and for the other concepts that it serves too."""

    concept: str
    hit: Hit
    others: tuple[str, ...] = ()


def select_references(state: State, context: Context, repairs: Sequence[Repair]) -> tuple[Reference, ...]:
    """Return the references of the next request, in the order of the concepts.

    References of the best attempt stay for the concepts that it shows, and for those that another seed
    repairs; each other concept under repair gets its best unused hit. For an inpainted box the references of
    what is kept take no slot: they are not shown, and stay in the request as the sources of the image.
    """
    capabilities, concept = context.generator.capabilities, inpainted_concept(repairs)
    actions = (*REFERENCE_ACTIONS, "inpaint")
    candidates = unused_candidates(state, {repair.concept for repair in repairs if repair.action in actions})
    replaced = {repair.concept for repair in repairs if repair.action in REFERENCE_ACTIONS}
    # a box keeps its reference where no other is left and the generator takes one beside the image
    if concept and (candidates.get(concept) or not capabilities.inpaint_slots):
        replaced.add(concept)
    retained = retained_references(ledger.best(state.attempts), replaced)
    if concept is None:
        retained = retained[: free_slots(state, context)]
        slots = free_slots(state, context) - len(retained)
    else:
        slots = capabilities.inpaint_slots
    references = retained + make_references(pick_hits(candidates, slots), context)
    return order_references(references, state.concept_names)


def input_references(pictures: Iterable[Picture]) -> tuple[Reference, ...]:
    """Return input images as references; every request has them, before the retrieved ones."""
    return tuple(
        Reference(
            concept=f"input image {number}",
            hit=Hit(id=picture.sha256, score=1.0, source=INPUT_SOURCE),
            picture=picture,
        )
        for number, picture in enumerate(pictures, 1)
    )


def free_slots(state: State, context: Context) -> int:
    """Return the generator's slots beside the input images."""
    return max(context.generator.capabilities.slots - len(state.pictures), 0)


def inpainted_concept(repairs: Iterable[Repair]) -> str | None:
    """Return the concept whose box is inpainted, None where the whole image is generated."""
    return next((repair.concept for repair in repairs if repair.action == "inpaint"), None)


def references_of(attempt: Attempt | None) -> tuple[Reference, ...]:
    """Return the references of an attempt, none without an attempt."""
    return attempt.request.references if attempt else ()


def retained_references(attempt: Attempt | None, replaced: Collection[str]) -> tuple[Reference, ...]:
    """Return the library references of an attempt but those of `replaced` concepts."""
    retained = (item for item in references_of(attempt) if item.hit.source != INPUT_SOURCE)
    return tuple(reference for reference in retained if reference.concept not in replaced)


def find_retrieval(concept: str, retrievals: Iterable[Retrieval]) -> Retrieval | None:
    """Return the retrieval made for a concept, None where there is none."""
    return next((retrieval for retrieval in retrievals if retrieval.concept == concept), None)


def used_ids(concept: str, attempts: Iterable[Attempt]) -> set[str]:
    """Return the ids of the hits that any attempt used for a concept."""
    used = (reference for attempt in attempts for reference in attempt.request.references)
    return {reference.hit.id for reference in used if reference.concept == concept}


def unused_hits(retrieval: Retrieval, attempts: Iterable[Attempt]) -> list[Hit]:
    """Return the hits above the threshold that no attempt used for the concept, best first."""
    if retrieval.abstained:
        return []
    used = used_ids(retrieval.concept, attempts)
    return [hit for hit in retrieval.hits if hit.id not in used and retrieval.accepts(hit)]


def unused_candidates(state: State, concepts: Collection[str]) -> dict[str, list[Hit]]:
    """Return the unused hits of each of `concepts` that was retrieved for, in the order of the retrievals."""
    return {
        retrieval.concept: unused_hits(retrieval, state.attempts)
        for retrieval in state.retrievals
        if retrieval.concept in concepts
    }


def restrict_retrievals(
    retrievals: Iterable[Retrieval], choices: Mapping[str, Hit], vetoes: Collection[str]
) -> list[Retrieval]:
    """Return the retrievals with a chosen hit as a concept's only one, and without the vetoed ids.

    A chosen hit needs no threshold. A retrieval whose hits are all vetoed abstains.
    """
    restricted = []
    for retrieval in retrievals:
        hits = tuple(hit for hit in retrieval.hits if hit.id not in vetoes)
        update: dict[str, Any] = {"hits": hits}
        if choice := choices.get(retrieval.concept):
            update = {"hits": (choice,), "threshold": None, "abstained": False}
        elif retrieval.hits and not hits:
            update |= {"abstained": True, "reason": "all found were vetoed"}
        restricted.append(retrieval.model_copy(update=update))
    return restricted


def pick_hits(candidates: Candidates, slots: int) -> list[Pick]:
    """Pick at most `slots` images for the concepts, which are in order of need; one for two is one pick."""
    candidates = {concept: hits for concept, hits in candidates.items() if hits}
    if len(candidates) > slots:
        return cover(candidates, slots)
    concepts: dict[str, list[str]] = {}
    for concept, hits in candidates.items():
        concepts.setdefault(hits[0].id, []).append(concept)
    return [Pick(first, candidates[first][0], tuple(others)) for first, *others in concepts.values()]


def cover(candidates: Candidates, slots: int) -> list[Pick]:
    """Pick by greedy budgeted cover over the Pareto front; ties go to the higher scores."""
    hits_by_id = {hit.id: hit for hits in candidates.values() for hit in hits}
    scores = score_table(candidates)
    front = pareto(scores)
    picks: list[Pick] = []
    uncovered = list(candidates)
    while uncovered and front and len(picks) < slots:
        best = max(front, key=lambda id: _gain(scores[id], uncovered))
        served = [concept for concept in uncovered if concept in scores[best]]
        if served:
            picks.append(Pick(served[0], hits_by_id[best], tuple(served[1:])))
        uncovered = [concept for concept in uncovered if concept not in served]
        front.remove(best)
    return picks


def score_table(candidates: Candidates) -> dict[str, dict[str, float]]:
    """Return for each image its score for every concept that it is a candidate for."""
    table: dict[str, dict[str, float]] = {}
    for concept, hits in candidates.items():
        for hit in hits:
            table.setdefault(hit.id, {})[concept] = hit.score
    return table


def pareto(scores: Mapping[str, Scores]) -> list[str]:
    """Return the ids of the images that no other one dominates."""
    return [id for id in scores if not any(dominates(other, scores[id]) for other in scores.values())]


def dominates(a: Scores, b: Scores) -> bool:
    """Return whether `a` is at least as good for every concept of `b` and better in one way."""
    if a is b or not all(a.get(concept, -2.0) >= score for concept, score in b.items()):
        return False
    return len(a) > len(b) or any(a[concept] > score for concept, score in b.items())


def _gain(scores: Scores, uncovered: Sequence[str]) -> tuple[int, float]:
    """Return how many uncovered concepts an image would serve, and the sum of its scores for them."""
    served = [scores[concept] for concept in uncovered if concept in scores]
    return (len(served), sum(served))


class Unavailable(Exception):
    """An image of the library cannot be read any more."""

    def __init__(self, id: str, why: str) -> None:
        super().__init__(f"{id}: {why}")
        self.id, self.why = id, why


def open_hit(hit: Hit, context: Context) -> Image:
    """Open the image of a hit; raise `Unavailable` if it was deleted, changed or damaged since."""
    try:
        return open_image(context.retriever, hit.id)
    except (BadPicture, NoLibrary, OSError) as error:
        raise Unavailable(hit.id, str(error)) from error


class _WithInputImages(Wrapper):
    """Retriever that opens the input images from the store, and all others from the library."""

    def __init__(self, retriever: Retriever, store: ArtifactStore, pictures: Mapping[str, Picture]) -> None:
        super().__init__(retriever)
        self._store, self._pictures = store, pictures

    def open(self, id: str) -> Image:
        return self._store.open(self._pictures[id]) if id in self._pictures else super().open(id)


def with_input_images(context: Context, references: Sequence[Reference]) -> Context:
    """Return a copy of the context whose retriever also opens the input images."""
    pictures = {reference.hit.id: reference.picture for reference in references}
    retriever = _WithInputImages(context.retriever, context.store, pictures)
    return context.with_retrievers(retriever, context.paper_retriever)


def until_available(state: AnyState, build: Callable[[AnyState], Built]) -> tuple[Built, list[Retrieval]]:
    """Build from a state, again without each hit that cannot be opened; return the retrievals that changed.

    Raise `Unavailable` for an image of no retrieval.
    """
    changed: dict[str, Retrieval] = {}
    while True:
        try:
            return build(state), list(changed.values())
        except Unavailable as lost:
            marked = {
                retrieval.concept: retrieval.without(lost.id, lost.why)
                for retrieval in state.retrievals
                if lost.id not in retrieval.unavailable and lost.id in {hit.id for hit in retrieval.hits}
            }
            if not marked:
                raise
            changed |= marked
            retrievals = [marked.get(retrieval.concept, retrieval) for retrieval in state.retrievals]
            state = state.model_copy(update={"retrievals": retrievals})


def make_references(picks: Iterable[Pick], context: Context) -> tuple[Reference, ...]:
    """Copy each picked image into the store, so that the run keeps it, and choose its crop.

    Raise `Unavailable` for one that cannot be read.
    """
    references = []
    for pick in picks:
        picture = context.store.put(open_hit(pick.hit, context))
        size, concepts = (picture.width, picture.height), (pick.concept, *pick.others)
        crop = choose_crop(concepts, pick.hit.boxes, size, context.crops)
        references.append(Reference(concept=pick.concept, hit=pick.hit, picture=picture, crop=crop))
    return tuple(references)


def order_references(references: Iterable[Reference], concepts: Sequence[str]) -> tuple[Reference, ...]:
    """Return references in the order of their concepts, those of other concepts last and as they were.

    A generator infers from the order alone which reference belongs to which subject of the prompt.
    """
    rank = {concept: number for number, concept in enumerate(concepts)}
    return tuple(sorted(references, key=lambda reference: rank.get(reference.concept, len(rank))))


def order_by_prompt(references: Sequence[Reference], prompt: str) -> tuple[Reference, ...]:
    """Return references in the order in which the prompt names their concepts; the others last."""
    text = prompt.casefold()
    places = {reference.concept: text.find(reference.concept.casefold()) for reference in references}
    concepts = [concept for concept, place in places.items() if place >= 0]
    return order_references(references, sorted(concepts, key=places.__getitem__))


def with_boxes(references: Iterable[Reference], rows: Iterable[Row]) -> tuple[Reference, ...]:
    """Return references with the box of their concept in the repaired image; None is everywhere."""
    boxes = {row.concept: row.box for row in rows}
    return tuple(
        reference.model_copy(update={"box": boxes.get(reference.concept)}) for reference in references
    )
