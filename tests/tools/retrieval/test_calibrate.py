"""A threshold from captions: between a caption's own pictures and the others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pleinair.tools.retrieval.calibrate import Calibration, calibrate
from pleinair.tools.types import BadInput, Hit

SCORE = st.integers(-100, 100).map(lambda score: score / 100)
SCORES = st.tuples(SCORE, SCORE)


class Scored:
    """Score a caption's own picture and the next caption's picture as told."""

    def __init__(self, scores: Sequence[tuple[float, float]], blank: int = 0) -> None:
        self.scores, self.blank = list(scores), blank
        self.asked: list[str] = []

    def search(self, query: str, k: int) -> list[Hit]:
        self.asked.append(query)
        own, other = self.scores[int(query)]
        after = str((int(query) + 1) % len(self.scores))
        hits = [Hit(id=query, score=own, caption=query), Hit(id=after, score=other, caption=after)]
        return sorted(hits, key=lambda hit: -hit.score)[:k]

    def open(self, id: str) -> Image.Image:
        raise AssertionError("a threshold is found without pictures")

    def entries(self) -> list[Hit]:
        named = [Hit(id=str(number), score=0, caption=str(number)) for number in range(len(self.scores))]
        return [*named, *(Hit(id=f"b{number}", score=0) for number in range(self.blank))]


def test_the_floor_is_in_the_middle_of_the_gap() -> None:
    found = calibrate(Scored([(0.9, 0.5), (0.8, 0.6), (0.85, 0.2)]))
    assert found == Calibration(threshold=0.7, captions=3, recall=1, false_accepts=0)


def test_an_overlap_is_split_where_the_fewest_are_wrong() -> None:
    found = calibrate(Scored([(0.9, 0.5), (0.8, 0.3), (0.7, 0.75), (0.2, 0.1)]))
    assert found.threshold == pytest.approx(0.6)
    assert (found.recall, found.false_accepts) == (0.75, 0.25)


def test_pictures_of_the_same_caption_are_its_own() -> None:
    shelf = Scored([(0.3, 0.5), (0.8, 0.6)])
    twin = Hit(id="twin", score=0.95, caption="0")
    usual = shelf.search
    shelf.search = lambda query, k: [twin] * (query == "0") + usual(query, k)  # type: ignore[method-assign]
    assert calibrate(shelf) == Calibration(threshold=0.7, captions=2, recall=1, false_accepts=0)


def test_what_shares_a_word_is_no_stranger() -> None:
    captions = ["a red finch", "a blue finch", "a car"]

    def search(query: str, k: int) -> list[Hit]:
        score = {"a car": 0.2} | dict.fromkeys(captions[:2], 0.8 if "finch" in query else 0.2) | {query: 0.9}
        return [Hit(id=one, score=score[one], caption=one) for one in captions]

    shelf = Scored([(0, 0)] * 3)
    shelf.entries = lambda: [Hit(id=one, score=0, caption=one) for one in captions]  # type: ignore[method-assign]
    shelf.search = search  # type: ignore[method-assign]
    assert calibrate(shelf) == Calibration(threshold=0.55, captions=3, recall=1, false_accepts=0)


def test_a_large_library_is_sampled_evenly_and_once_a_caption() -> None:
    shelf = Scored([(0.9, 0.1)] * 1000, blank=5)
    assert calibrate(shelf, sample=100).captions == 100
    assert shelf.asked == [str(number) for number in range(0, 1000, 10)]


@pytest.mark.parametrize("scores", [[], [(0.9, 0.1)]])
def test_without_captions_to_compare_there_is_no_floor(scores: list[tuple[float, float]]) -> None:
    with pytest.raises(BadInput, match=f"has {len(scores)} captions"):
        calibrate(Scored(scores, blank=3))


@given(st.lists(SCORES, min_size=2, max_size=12))
def test_no_other_floor_does_better(scores: list[tuple[float, float]]) -> None:
    def gain(threshold: float) -> int:
        return sum(own >= threshold for own, _ in scores) - sum(other >= threshold for _, other in scores)

    found = calibrate(Scored(scores))
    assert (found.recall - found.false_accepts) * len(scores) == pytest.approx(gain(found.threshold))
    assert gain(found.threshold) == max(gain(own) for own, _ in scores)
