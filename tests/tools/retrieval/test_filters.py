"""Filters of hits: what they remove, and that other hits take the free places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.fake_retriever import FakeRetriever, ids, unit

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.realrag import Training, training_of
from pleinair.tools.retrieval.filters import (
    Filtered,
    Images,
    by_license,
    readable,
    similar,
    without,
)
from pleinair.tools.retrieval.fusion import distinct
from pleinair.tools.types import BadInput


def licensed(retriever: FakeRetriever, *licenses: str) -> Filtered:
    return Filtered(retriever, by_license(licenses))


def test_hits_with_an_allowed_license_pass_in_any_case() -> None:
    fake = FakeRetriever("abcdef", b="CC0-1.0", c="CC-BY-4.0", f="cc0-1.0")
    assert ids(licensed(fake, "CC0-1.0").search("q", 2)) == "bf"
    assert ids(licensed(fake, "CC0-1.0").entries()) == "bf"
    assert ids(licensed(fake, " cc-by-4.0", "CC0-1.0").search("q", 2)) == "bc"


def test_an_image_without_a_stated_license_has_the_license_unknown() -> None:
    assert licensed(FakeRetriever("ab"), "CC0-1.0").search("q", 3) == []
    assert ids(licensed(FakeRetriever("ab", b="CC0"), "unknown").search("q", 3)) == "a"


def test_more_hits_are_requested_until_enough_pass() -> None:
    fake = FakeRetriever("a" * 20 + "b", b="CC0")
    assert ids(licensed(fake, "CC0").search("q", 1)) == "b"
    assert fake.sizes == [2, 8, 32]


def test_a_copy_is_removed_and_the_next_hit_takes_its_place() -> None:
    fake = FakeRetriever("abcd", angles={"a": 0, "b": 5, "c": 10, "d": 90})
    filtered = Filtered(fake, distinct(similar(fake.vector, np.cos(np.radians(7)))), filter_entries=False)
    assert ids(filtered.search("q", 2)) == "ac"  # b looks like a; c looks like b, which was removed
    assert ids(filtered.search("q", 4)) == "acd"
    assert ids(filtered.entries()) == "abcd"
    assert filtered.open("a").size == (8, 8)


@given(st.text("abcdef", max_size=12), st.integers(1, 6), st.sets(st.sampled_from("abcdef")))
def test_the_first_k_hits_that_pass_are_returned(ranking: str, k: int, free: set[str]) -> None:
    fake = FakeRetriever(ranking, None, None, **dict.fromkeys(free, "CC0"))
    assert ids(licensed(fake, "CC0").search("q", k)) == "".join(id for id in ranking if id in free)[:k]


@given(st.lists(st.floats(0, 360), min_size=1, max_size=8), st.floats(0.5, 1))
def test_no_two_hits_that_pass_look_alike(degrees: list[float], most: float) -> None:
    angles = dict(zip("abcdefgh", degrees, strict=False))
    passed = ids(
        Filtered(FakeRetriever("".join(angles)), distinct(similar(lambda id: unit(angles[id]), most))).search(
            "q", 8
        )
    )
    assert passed[0] == "a"
    for place, id in enumerate(passed):
        assert all(float(unit(angles[id]) @ unit(angles[better])) <= most for better in passed[:place])


@pytest.mark.parametrize(("copies", "passed"), [(True, "acd"), (False, "ad")])
def test_without_vectors_unreadable_files_and_equal_pixels_are_removed(copies: bool, passed: str) -> None:
    files: list[str] = []

    def open(id: str) -> Image.Image:
        files.append(id)
        if id == "b":
            raise BadPicture("damaged")
        return Image.new("RGB", (8, 8), {"a": "red", "c": "red", "d": "blue"}[id])

    images = Images(open)
    filtered = Filtered(FakeRetriever("abcd"), readable(images))
    if not copies:
        filtered = Filtered(filtered, distinct(images.equal))
    assert ids(filtered.search("q", 4)) == ids(filtered.search("q", 4)) == passed
    assert files == list("abcd")  # each is read once


@pytest.mark.parametrize("k", [0, -1])
def test_the_retriever_below_refuses_an_invalid_number_of_hits(k: int) -> None:
    with pytest.raises(BadInput):
        licensed(FakeRetriever("a"), "CC0").search("q", k)


def test_removed_ids_are_not_returned_but_may_be_opened() -> None:
    filtered = Filtered(FakeRetriever("abcd"), without(["a", "c"]))
    assert ids(filtered.search("q", 2)) == "bd"
    assert ids(filtered.entries()) == "bd"
    assert filtered.open("a").size == (8, 8)


def test_a_filtered_retriever_has_the_training_of_the_one_below() -> None:
    fake = FakeRetriever("ab")
    fake.training = Training(loss="reflective", generator="square")  # type: ignore[attr-defined]
    assert training_of(Filtered(fake, without(["a"]))) == fake.training  # type: ignore[attr-defined]
    assert training_of(Filtered(FakeRetriever("ab"), without(["a"]))) is None
