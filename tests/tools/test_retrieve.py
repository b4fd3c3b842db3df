from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pleinair.tools.retrieve import retrieve
from pleinair.tools.types import BadInput, Concept, Hit

FINCH = Concept(name="finch", caption="a velmora finch on a branch")


class Shelf:
    """Answer every query with the same scores."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores
        self.asked: list[tuple[str, int]] = []

    def search(self, query: str, k: int) -> list[Hit]:
        if k < 1:
            raise BadInput("`k` is under 1.")
        self.asked.append((query, k))
        return [Hit(id=f"{place}.png", score=score) for place, score in enumerate(self.scores)][:k]

    def open(self, id: str) -> Image.Image:
        raise AssertionError("a look-up opens nothing")

    def entries(self) -> list[Hit]:
        raise AssertionError("a look-up lists nothing")


def test_the_caption_is_looked_up_and_not_the_name() -> None:
    shelf = Shelf(0.4)
    found = retrieve(FINCH, retriever=shelf, k=3, threshold=0.25)
    assert shelf.asked == [("a velmora finch on a branch", 3)]
    assert (found.concept, found.query, found.threshold) == ("finch", FINCH.caption, 0.25)


def test_hits_come_best_first_with_the_weak_ones_on_record() -> None:
    found = retrieve(FINCH, retriever=Shelf(0.4, 0.3, 0.1), k=3, threshold=0.25)
    assert [hit.score for hit in found.hits] == [0.4, 0.3, 0.1]
    assert (found.abstained, found.reason) == (False, "")


def test_a_weak_best_hit_is_an_abstention_with_both_numbers() -> None:
    found = retrieve(FINCH, retriever=Shelf(0.12, 0.1), k=2, threshold=0.25)
    assert found.abstained
    assert found.reason == "best match 0.12 is under the threshold 0.25"
    assert len(found.hits) == 2


def test_nothing_found_is_an_abstention() -> None:
    found = retrieve(FINCH, retriever=Shelf(), k=2, threshold=-1)
    assert (found.abstained, found.hits) == (True, ())
    assert "no picture" in found.reason


def test_bad_input_passes_through() -> None:
    with pytest.raises(BadInput):
        retrieve(FINCH, retriever=Shelf(0.5), k=0, threshold=0)


SCORES = st.floats(-1, 1)


@settings(deadline=None)
@given(st.lists(SCORES, min_size=1), SCORES)
def test_it_abstains_exactly_when_no_hit_reaches_the_floor(scores: list[float], threshold: float) -> None:
    found = retrieve(
        FINCH, retriever=Shelf(*sorted(scores, reverse=True)), k=len(scores), threshold=threshold
    )
    assert found.abstained == all(score < threshold for score in scores)
    assert found.abstained == bool(found.reason)
