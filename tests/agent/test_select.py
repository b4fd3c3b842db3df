"""Selection of references: one per concept if they fit, else a cover by the best images."""

from itertools import combinations

from hypothesis import given as given_values
from hypothesis import strategies as st

from pleinair.agent.select import (
    Pick,
    dominates,
    order_by_prompt,
    order_references,
    pareto,
    pick_hits,
    restrict_retrievals,
    score_table,
    with_boxes,
)
from pleinair.tools.types import Hit, Picture, Reference, Retrieval, Row


def hit(id: str, score: float) -> Hit:
    return Hit(id=id, score=score)


def test_each_concept_takes_its_best_hit_when_slots_suffice() -> None:
    picks = pick_hits({"finch": [hit("a", 0.9), hit("b", 0.8)], "coupe": [hit("c", 0.5)]}, slots=2)
    assert [(pick.concept, pick.hit.id) for pick in picks] == [("finch", "a"), ("coupe", "c")]


def test_a_concept_without_hits_takes_no_slot() -> None:
    picks = pick_hits({"finch": [], "coupe": [hit("c", 0.5)]}, slots=1)
    assert [pick.concept for pick in picks] == ["coupe"]


def test_one_slot_goes_to_the_image_that_shows_both() -> None:
    picks = pick_hits(
        {"finch": [hit("a", 0.9), hit("both", 0.6)], "coupe": [hit("c", 0.9), hit("both", 0.6)]}, slots=1
    )
    assert picks == [Pick("finch", hit("both", 0.6), ("coupe",))]


def test_an_image_for_two_concepts_is_one_pick_with_both() -> None:
    both, other = hit("both", 0.6), hit("other", 0.5)
    picks = pick_hits({"finch": [both], "cod": [other], "coupe": [both]}, slots=3)
    assert picks == [Pick("finch", both, ("coupe",)), Pick("cod", other)]


def reference(concept: str) -> Reference:
    picture = Picture(sha256="0" * 64, width=1, height=1)
    return Reference(concept=concept, hit=hit(concept, 0.5), picture=picture)


def test_a_reference_gets_the_box_of_its_concept() -> None:
    box = (0.0, 0.0, 0.5, 1.0)
    rows = [
        Row(concept="finch", status="present", confidence=0.9, box=box),
        Row(concept="coupe", status="missing", confidence=0.9),
    ]
    before = reference("coupe").model_copy(update={"box": box})
    finch, coupe, stranger = with_boxes([reference("finch"), before, reference("stranger")], rows)
    assert (finch.box, coupe.box, stranger.box) == (box, None, None)


REFERENCES = [reference(name) for name in ("stranger", "coupe", "other", "finch")]


def test_references_follow_their_concepts_and_strangers_come_last() -> None:
    ordered = order_references(REFERENCES, ["finch", "absent", "coupe"])
    assert [reference.concept for reference in ordered] == ["finch", "coupe", "stranger", "other"]


def test_references_follow_the_prompt() -> None:
    ordered = order_by_prompt(REFERENCES, "A Finch in some other coupe")
    assert [reference.concept for reference in ordered] == ["finch", "other", "coupe", "stranger"]


def test_a_choice_is_a_concepts_only_hit_and_a_veto_removes_one() -> None:
    retrievals = [
        Retrieval(concept=name, query=name, hits=(hit("a", 0.2), hit("b", 0.1)), threshold=0.5)
        for name in ("finch", "coupe", "cod")
    ]
    finch, coupe, cod = restrict_retrievals(retrievals, {"finch": hit("c", 0.1)}, ["a"])
    assert (finch.hits, finch.threshold) == ((hit("c", 0.1),), None)
    assert (coupe.hits, coupe.threshold, coupe.abstained) == ((hit("b", 0.1),), 0.5, False)
    (cod,) = restrict_retrievals([cod], {}, ["a", "b"])
    assert (cod.hits, cod.abstained, cod.reason) == ((), True, "all found were vetoed")


def test_no_slots_give_no_references() -> None:
    assert pick_hits({"finch": [hit("a", 0.9)]}, slots=0) == []


tables = st.dictionaries(
    st.sampled_from("xyz"),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), max_size=6),
    max_size=3,
)


@given_values(tables, st.integers(0, 3))
def test_slots_are_never_exceeded_and_no_concept_is_served_twice(
    table: dict[str, dict[str, float]], slots: int
) -> None:
    candidates = {
        concept: sorted((hit(id, score) for id, score in hits.items()), key=lambda hit: -hit.score)
        for concept, hits in table.items()
    }
    picks = pick_hits(candidates, slots)
    served = [concept for pick in picks for concept in (pick.concept, *pick.others)]
    assert len({pick.hit.id for pick in picks}) == len(picks) <= slots
    assert len(set(served)) == len(served)


@given_values(tables)
def test_pareto_keeps_exactly_what_no_other_image_beats(table: dict[str, dict[str, float]]) -> None:
    scores = score_table({c: [hit(id, s) for id, s in hits.items()] for c, hits in table.items()})
    front = set(pareto(scores))
    for a, b in combinations(scores, 2):
        if dominates(scores[a], scores[b]):
            assert b not in front
    for id in set(scores) - front:
        assert any(dominates(scores[other], scores[id]) for other in scores)
