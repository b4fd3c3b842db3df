"""What is left out, and that others take its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_retriever import Shelf, ids

from pleinair.tools.realrag import Training, training_of
from pleinair.tools.retrieval.filters import AtLeast, Distinct, Licensed, Without

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors


def angle(degrees: float) -> Vectors:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def test_only_allowed_licences_are_found_whatever_their_case() -> None:
    shelf = Shelf("abcdef", b="CC0-1.0", c="CC-BY-4.0", f="cc0-1.0")
    licensed = Licensed(shelf, ["CC0-1.0"])
    assert ids(licensed.search("q", 2)) == "bf"
    assert ids(licensed.entries()) == "bf"
    assert ids(Licensed(shelf, [" cc-by-4.0", "CC0-1.0"]).search("q", 2)) == "bc"


def test_a_picture_without_a_licence_is_unknown_and_not_free() -> None:
    assert Licensed(Shelf("ab"), ["CC0-1.0"]).search("q", 3) == []
    assert ids(Licensed(Shelf("ab", b="CC0"), ["unknown"]).search("q", 3)) == "a"


def test_more_is_asked_for_until_there_is_enough() -> None:
    shelf = Shelf("a" * 20 + "b", b="CC0")
    assert ids(Licensed(shelf, ["CC0"]).search("q", 1)) == "b"
    assert shelf.asked == [2, 8, 32]


def test_the_floor_is_in_the_retrievers_own_scores() -> None:
    shelf = Shelf("abcd")
    assert ids(AtLeast(shelf, 0.75).search("q", 4)) == "ab"
    assert AtLeast(shelf, 0.95).search("q", 4) == []
    assert shelf.asked == [4, 4]


def test_a_copy_is_left_out_and_another_takes_its_place() -> None:
    degrees = {"a": 0, "b": 5, "c": 10, "d": 90}
    distinct = Distinct(Shelf("abcd"), lambda id: angle(degrees[id]), np.cos(np.radians(7)))
    assert ids(distinct.search("q", 2)) == "ac"  # b looks like a; c looks like b, which is not shown
    assert ids(distinct.search("q", 4)) == "acd"


def test_the_rest_goes_through() -> None:
    distinct = Distinct(Shelf("ba"), lambda _: angle(0), 0.98)
    assert ids(distinct.entries()) == "ab"
    assert distinct.open("a").size == (8, 8)


@given(st.text("abcdef", max_size=12), st.integers(1, 6), st.sets(st.sampled_from("abcdef")))
def test_a_filter_gives_the_first_k_of_what_it_keeps(ranking: str, k: int, free: set[str]) -> None:
    shelf = Shelf(ranking, {}, **dict.fromkeys(free, "CC0"))
    assert ids(Licensed(shelf, ["CC0"]).search("q", k)) == "".join(id for id in ranking if id in free)[:k]


@given(st.lists(st.floats(0, 360), min_size=1, max_size=8), st.floats(0.5, 1))
def test_no_two_of_what_is_kept_look_alike(degrees: list[float], most: float) -> None:
    names = "abcdefgh"[: len(degrees)]
    vectors = {name: angle(turn) for name, turn in zip(names, degrees, strict=True)}
    kept = ids(Distinct(Shelf(names), vectors.__getitem__, most).search("q", 8))
    assert kept[0] == "a"
    for place, one in enumerate(kept):
        assert all(float(vectors[one] @ vectors[other]) <= most for other in kept[:place])


@pytest.mark.parametrize("k", [0, -1])
def test_a_question_for_nothing_is_refused_by_the_retriever(k: int) -> None:
    from pleinair.tools.types import BadInput

    with pytest.raises(BadInput):
        Licensed(Shelf("a"), ["CC0"]).search("q", k)


def test_pictures_are_left_out_by_name_and_may_be_opened() -> None:
    without = Without(Shelf("abcd"), ["a", "c"])
    assert ids(without.search("q", 2)) == "bd"
    assert ids(without.entries()) == "bd"
    assert without.open("a").size == (8, 8)


def test_a_filter_is_of_the_training_of_what_it_filters() -> None:
    shelf = Shelf("ab")
    shelf.training = Training(loss="reflective", generator="square")  # type: ignore[attr-defined]
    assert training_of(Without(shelf, ["a"])) == shelf.training  # type: ignore[attr-defined]
    assert training_of(Without(Shelf("ab"), ["a"])) is None
