"""Reciprocal rank fusion: the sums, the order, and what one list alone can say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_retriever import Shelf, ids

from pleinair.tools.retrieval.compose import DEPTH, Hybrid, fuse
from pleinair.tools.types import Hit

RANKINGS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8).map("".join)


def ranked(ranking: str) -> list[Hit]:
    return [Hit(id=id, score=0.5) for id in ranking]


def test_the_score_is_the_sum_of_the_reciprocal_ranks() -> None:
    hits = {hit.id: hit.score for hit in Hybrid(Shelf("abc"), Shelf("bd")).search("q", 9)}
    assert hits == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "d": 1 / 62, "c": 1 / 63})
    assert list(hits) == ["b", "a", "d", "c"]


def test_first_in_both_is_the_most_there_is() -> None:
    (hit,) = Hybrid(Shelf("a"), Shelf("a")).search("q", 1)
    assert hit.score == pytest.approx(2 / 61)


@pytest.mark.parametrize(("first", "second"), [("", "xy"), ("xy", ""), ("", "")])
def test_one_empty_list_hides_nothing(first: str, second: str) -> None:
    assert ids(Hybrid(Shelf(first), Shelf(second)).search("q", 9)) == first + second


def test_both_are_asked_for_more_than_is_wanted() -> None:
    first, second = Shelf("a"), Shelf("b")
    Hybrid(first, second).search("q", 2)
    Hybrid(first, second).search("q", 2 * DEPTH)
    assert first.asked == second.asked == [DEPTH, 2 * DEPTH]


def test_the_library_is_the_same_for_both() -> None:
    hybrid = Hybrid(Shelf("ab"), Shelf("b"))
    assert ids(hybrid.entries()) == "ab"
    assert hybrid.open("a").size == (8, 8)


@given(RANKINGS, RANKINGS)
def test_nothing_is_lost_twice_or_out_of_order(first: str, second: str) -> None:
    fused = fuse([ranked(first), ranked(second)])
    assert sorted(hit.id for hit in fused) == sorted({*first, *second})
    scores = [hit.score for hit in fused]
    assert scores == sorted(scores, reverse=True)


@given(RANKINGS)
def test_two_equal_lists_keep_their_order(ranking: str) -> None:
    assert ids(fuse([ranked(ranking), ranked(ranking)])) == ranking
