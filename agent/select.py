"""Which found pictures get the generator's few slots.

With a slot for every concept each takes its best untried hit. With fewer slots the choice is a
budgeted cover: candidates that another one beats on every concept fall out (Pareto), then the one
that serves the most uncovered concepts is taken until the slots are full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pleinair.agent import select as selection
from pleinair.agent.context import Context
from pleinair.agent.repairs import inpaint
from pleinair.agent.repairs import plan as planning
from pleinair.agent.state import State
from pleinair.tools.images.crops import choose_crop
from pleinair.tools.types import Attempt, Hit, Reference, Repair, Row

Scores = Mapping[str, float]  # concept -> score of one picture for it


@dataclass(frozen=True, slots=True)
class Pick:
    """A picture chosen to show one concept, and perhaps others with it."""

    concept: str
    hit: Hit
    others: tuple[str, ...] = ()


def select(candidates: Mapping[str, Sequence[Hit]], slots: int) -> list[Pick]:
    """Choose at most `slots` pictures for the concepts, which come in order of need.

    Args:
        candidates: for each concept its usable hits, best first; an empty list is allowed.
        slots: pictures that fit, at least 0.
    """
    wanted = {concept: hits for concept, hits in candidates.items() if hits}
    if len(wanted) <= slots:
        return [Pick(concept, hits[0]) for concept, hits in wanted.items()]
    return cover(wanted, slots)


def placed(references: Iterable[Reference], rows: Iterable[Row]) -> tuple[Reference, ...]:
    """Give each reference the place of its concept in the picture that is repaired; unknown is everywhere."""
    boxes = {row.concept: row.box for row in rows}
    return tuple(one.model_copy(update={"box": boxes.get(one.concept)}) for one in references)


def once(picks: Iterable[Pick]) -> list[Pick]:
    """Merge a picture's picks into its first: a picture for two concepts is one reference in one slot."""
    first: dict[str, Pick] = {}
    for pick in picks:
        known = first.get(pick.hit.id)
        first[pick.hit.id] = replace(known, others=(*known.others, pick.concept)) if known else pick
    return list(first.values())


def in_order(references: Iterable[Reference], concepts: Sequence[str]) -> tuple[Reference, ...]:
    """Put references in the order of their concepts, those of other concepts last and as they were.

    A generator tells by the order alone which reference belongs to which subject of the prompt.
    """
    place = {concept: number for number, concept in enumerate(concepts)}
    return tuple(sorted(references, key=lambda one: place.get(one.concept, len(place))))


def cover(candidates: Mapping[str, Sequence[Hit]], slots: int) -> list[Pick]:
    """Greedy budgeted cover over the non-dominated pictures; ties go to the higher score."""
    hits = {hit.id: hit for found in candidates.values() for hit in found}
    scores = score_table(candidates)
    front = pareto(scores)
    picks: list[Pick] = []
    uncovered = list(candidates)
    while uncovered and front and len({pick.hit.id for pick in picks}) < slots:
        chosen = max(front, key=lambda id: _gain(scores[id], uncovered))
        served = [concept for concept in uncovered if concept in scores[chosen]]
        picks += [Pick(concept, hits[chosen]) for concept in served]
        uncovered = [concept for concept in uncovered if concept not in served]
        front.remove(chosen)
    return picks


def score_table(candidates: Mapping[str, Sequence[Hit]]) -> dict[str, dict[str, float]]:
    """Give each picture its score for every concept whose look-up found it."""
    table: dict[str, dict[str, float]] = {}
    for concept, hits in candidates.items():
        for hit in hits:
            table.setdefault(hit.id, {})[concept] = hit.score
    return table


def pareto(scores: Mapping[str, Scores]) -> list[str]:
    """Keep the pictures that no other one dominates."""
    return [id for id in scores if not any(dominates(other, scores[id]) for other in scores.values())]


def dominates(a: Scores, b: Scores) -> bool:
    """Tell whether `a` is at least as good for every concept of `b` and better in one way."""
    if a is b or not all(a.get(concept, -2.0) >= score for concept, score in b.items()):
        return False
    return len(a) > len(b) or any(a[concept] > score for concept, score in b.items())


def _gain(scores: Scores, uncovered: Sequence[str]) -> tuple[int, float]:
    """Count the uncovered concepts a picture would serve, then add up its scores for them."""
    served = [scores[concept] for concept in uncovered if concept in scores]
    return (len(served), sum(served))


def choose_references(
    state: State, context: Context, good: Attempt | None, repairs: list[Repair]
) -> tuple[Reference, ...]:
    """Keep the references that brought their concept in, and give each concept under repair a new one.

    A new one is the concept's best untried hit; the old one stays where the repair is another seed. Where
    only a box is painted anew, the references of what is kept take no slot: they are not shown, and stay in
    the request as what the picture came from.
    """
    able, painted = context.generator.capabilities, inpaint.painted(repairs)
    fresh = usable(state, {one.concept for one in repairs if one.action in (*planning.BRINGING, "inpaint")})
    swapped = inpaint.replaced(repairs, fresh, able)
    kept = tuple(one for one in references_of(good) if one.concept not in swapped)
    kept = kept if painted else kept[: able.slots]
    free = able.inpaint_slots if painted else max(able.slots - len(kept), 0)
    picks = selection.once(selection.select(fresh, free))
    new = tuple(make_reference(pick, context) for pick in picks)
    return selection.in_order(kept + new, [one.name for one in state.concepts])


def references_of(attempt: Attempt | None) -> tuple[Reference, ...]:
    """Give what an attempt was drawn from."""
    return attempt.request.references if attempt else ()


def usable(state: State, concepts: set[str]) -> dict[str, list[Hit]]:
    """Give each concept under repair its hits that are above the threshold and untried."""
    found = [one for one in state.retrievals if one.concept in concepts]
    fresh = {one.concept: set(planning.untried(one, state.attempts)) for one in found}
    return {one.concept: [hit for hit in one.hits if hit.id in fresh[one.concept]] for one in found}


def make_reference(pick: selection.Pick, context: Context) -> Reference:
    """Copy a found picture into the store, so that the run keeps it, and choose its crop."""
    picture = context.store.put(context.retriever.open(pick.hit.id))
    size, concepts = (picture.width, picture.height), (pick.concept, *pick.others)
    crop = choose_crop(concepts, pick.hit.boxes, size, context.crops)
    return Reference(concept=pick.concept, hit=pick.hit, picture=picture, crop=crop)
