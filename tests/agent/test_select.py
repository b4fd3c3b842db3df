"""The choice of references: one a concept where they fit, a cover of the best pictures where not."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from pleinair.agent.select import Pick, dominates, in_order, once, pareto, placed, score_table, select
from pleinair.tools.types import Hit, Picture, Reference, Row


def hit(id: str, score: float) -> Hit:
    return Hit(id=id, score=score)


def test_each_concept_takes_its_best_hit_when_slots_suffice() -> None:
    picks = select({"finch": [hit("a", 0.9), hit("b", 0.8)], "coupe": [hit("c", 0.5)]}, slots=2)
    assert [(pick.concept, pick.hit.id) for pick in picks] == [("finch", "a"), ("coupe", "c")]


def test_a_concept_without_hits_takes_no_slot() -> None:
    picks = select({"finch": [], "coupe": [hit("c", 0.5)]}, slots=1)
    assert [pick.concept for pick in picks] == ["coupe"]


def test_one_slot_goes_to_the_picture_that_shows_both() -> None:
    picks = select(
        {"finch": [hit("a", 0.9), hit("both", 0.6)], "coupe": [hit("c", 0.9), hit("both", 0.6)]}, slots=1
    )
    assert {(pick.concept, pick.hit.id) for pick in picks} == {("finch", "both"), ("coupe", "both")}


def test_a_picture_for_two_concepts_is_one_pick_that_names_both() -> None:
    both, alone = hit("both", 0.6), hit("alone", 0.5)
    picks = once([Pick("finch", both), Pick("cod", alone), Pick("coupe", both)])
    assert picks == [Pick("finch", both, ("coupe",)), Pick("cod", alone)]


def reference(concept: str) -> Reference:
    picture = Picture(sha256="0" * 64, width=1, height=1)
    return Reference(concept=concept, hit=hit(concept, 0.5), picture=picture)


def test_a_reference_acts_where_its_concept_was_seen() -> None:
    box = (0.0, 0.0, 0.5, 1.0)
    rows = [
        Row(concept="finch", status="present", confidence=0.9, box=box),
        Row(concept="coupe", status="missing", confidence=0.9),
    ]
    before = reference("coupe").model_copy(update={"box": box})
    finch, coupe, stranger = placed([reference("finch"), before, reference("stranger")], rows)
    assert (finch.box, coupe.box, stranger.box) == (box, None, None)


def test_references_follow_their_concepts_and_strangers_come_last() -> None:
    given = [reference(name) for name in ("stranger", "coupe", "other", "finch")]
    ordered = [one.concept for one in in_order(given, ["finch", "absent", "coupe"])]
    assert ordered == ["finch", "coupe", "stranger", "other"]


def test_no_slots_give_no_references() -> None:
    assert select({"finch": [hit("a", 0.9)]}, slots=0) == []


tables = st.dictionaries(
    st.sampled_from("xyz"),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), max_size=6),
    max_size=3,
)


@given(tables, st.integers(0, 3))
def test_slots_are_never_exceeded_and_no_concept_is_served_twice(
    table: dict[str, dict[str, float]], slots: int
) -> None:
    candidates = {
        concept: sorted((hit(id, score) for id, score in hits.items()), key=lambda one: -one.score)
        for concept, hits in table.items()
    }
    picks = select(candidates, slots)
    assert len({pick.hit.id for pick in picks}) <= slots
    assert len({pick.concept for pick in picks}) == len(picks)


@given(tables)
def test_pareto_keeps_exactly_what_no_other_picture_beats(table: dict[str, dict[str, float]]) -> None:
    scores = score_table({c: [hit(id, s) for id, s in hits.items()] for c, hits in table.items()})
    front = set(pareto(scores))
    for a, b in combinations(scores, 2):
        if dominates(scores[a], scores[b]):
            assert b not in front
    for id in set(scores) - front:
        assert any(dominates(scores[other], scores[id]) for other in scores)
