"""Thresholds from captions: between the scores of related and of unrelated images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pleinair.tools.retrieval.calibrate import Rates, calibrate, choose
from pleinair.tools.retrieval.threshold import SHARE, sample_of
from pleinair.tools.types import BadInput, Hit

SCORE = st.integers(-100, 100).map(lambda score: score / 100)
SCORES = st.tuples(SCORE, SCORE)


class FixedScores:
    """Retriever of a caption's own image and the next caption's, with fixed scores."""

    def __init__(self, scores: Sequence[tuple[float, float]], blank: int = 0) -> None:
        self.scores, self.blank = list(scores), blank
        self.queries: list[str] = []
        self.encoder: Any = self
        self.means: dict[str, float] = {}  # of the cosines of a query with all images
        self.vectors: dict[str, list[float]] = {}

    def embed(self, texts: Sequence[str]) -> Any:
        return np.array([[self.means.get(text, 0.0), 0, 0] for text in texts], np.float32)

    def vector(self, id: str) -> Any:
        return np.array([1.0, *self.vectors.get(id, [0, 0])], np.float32)

    def search(self, query: str, k: int) -> list[Hit]:
        self.queries.append(query)
        related, unrelated = self.scores[int(query)]
        after = str((int(query) + 1) % len(self.scores))
        hits = [Hit(id=query, score=related, caption=query), Hit(id=after, score=unrelated, caption=after)]
        return sorted(hits, key=lambda hit: -hit.score)[:k]

    def open(self, id: str) -> Image.Image:
        raise AssertionError("calibration opens no image")

    def entries(self) -> list[Hit]:
        captioned = [Hit(id=str(number), score=0, caption=str(number)) for number in range(len(self.scores))]
        return [*captioned, *(Hit(id=f"b{number}", score=0) for number in range(self.blank))]


def flat(retriever: FixedScores, captions: int = 200) -> Rates:
    result = calibrate(retriever, sample_of(retriever), captions)
    assert result.relative == result.flat, "the mean cosine of every query is 0"
    return result.flat


def test_the_threshold_is_in_the_middle_of_the_gap() -> None:
    result = flat(FixedScores([(0.9, 0.5), (0.8, 0.6), (0.85, 0.2)]))
    assert result == Rates(threshold=0.7, recall=1, false_accepts=0)


def test_overlapping_scores_are_split_where_the_fewest_are_wrong() -> None:
    result = flat(FixedScores([(0.9, 0.5), (0.8, 0.3), (0.7, 0.75), (0.2, 0.1)]))
    assert result.threshold == pytest.approx(0.6)
    assert (result.recall, result.false_accepts) == (0.75, 0.25)


@pytest.mark.parametrize(
    ("scores", "separates"),
    [
        ([(0.9, 0.5), (0.8, 0.3), (0.7, 0.75), (0.2, 0.1)], True),
        ([(-0.4, -0.4), (0.1, 0.2), (0.3, 0.5), (0.2, -0.1)], False),
        ([(0.2, 0.2)] * 4, False),
    ],
)
def test_a_threshold_that_decides_little_better_than_chance_does_not_separate(
    scores: list[tuple[float, float]], separates: bool
) -> None:
    result = flat(FixedScores(scores))
    assert result.separates == separates == (result.recall - result.false_accepts >= 0.5)


def test_images_of_the_same_caption_are_related() -> None:
    retriever = FixedScores([(0.3, 0.5), (0.8, 0.6)])
    copy = Hit(id="copy", score=0.95, caption="0")
    search = retriever.search
    retriever.search = lambda query, k: [copy] * (query == "0") + search(query, k)  # type: ignore[method-assign]
    retriever.vectors = {"0": [3, 0], "copy": [3, 0]}
    assert flat(retriever) == Rates(threshold=0.7, recall=1, false_accepts=0)


def test_an_image_whose_caption_shares_a_word_is_not_unrelated() -> None:
    captions = ["a red finch", "a blue finch", "a car"]

    def search(query: str, k: int) -> list[Hit]:
        scores = {"a car": 0.2} | dict.fromkeys(captions[:2], 0.8 if "finch" in query else 0.2) | {query: 0.9}
        return [Hit(id=text, score=scores[text], caption=text) for text in captions]

    retriever = FixedScores([(0, 0)] * 3)
    retriever.entries = lambda: [Hit(id=text, score=0, caption=text) for text in captions]  # type: ignore[method-assign]
    retriever.search = search  # type: ignore[method-assign]
    assert flat(retriever) == Rates(threshold=0.55, recall=1, false_accepts=0)


def test_a_large_library_is_sampled_evenly() -> None:
    retriever = FixedScores([(0.9, 0.1)] * 1000, blank=5)
    assert calibrate(retriever, sample_of(retriever), 100).captions == 100
    assert retriever.queries == [str(number) for number in range(0, 1000, 10)]


@pytest.mark.parametrize("scores", [[], [(0.9, 0.1)]])
def test_fewer_than_two_captions_are_refused(scores: list[tuple[float, float]]) -> None:
    with pytest.raises(BadInput, match="all the same caption" if scores else "no captions"):
        flat(FixedScores(scores, blank=3))


@given(st.lists(SCORES, min_size=2, max_size=12))
def test_no_other_threshold_is_better(scores: list[tuple[float, float]]) -> None:
    def gain(threshold: float) -> int:
        return sum(related >= threshold for related, _ in scores) - sum(
            unrelated >= threshold for _, unrelated in scores
        )

    result = flat(FixedScores(scores))
    assert (result.recall - result.false_accepts) * len(scores) == pytest.approx(gain(result.threshold))
    assert gain(result.threshold) == max(gain(related) for related, _ in scores)


def test_an_image_without_a_caption_that_looks_like_the_captions_own_is_not_unrelated() -> None:
    """A red finch of two images, and a third one of the same look that nobody has described."""
    texts = {"a": "a red finch", "b": "a red finch", "c": "", "d": "a car"}
    finches = {"b": 0.9, "c": 0.85, "a": 0.8, "d": 0.3}
    cars = {"d": 0.7, "a": 0.2, "b": 0.2, "c": 0.1}

    def search(query: str, k: int) -> list[Hit]:
        scores = finches if "finch" in query else cars
        return [Hit(id=id, score=score, caption=texts[id]) for id, score in scores.items()]

    retriever = FixedScores([])
    retriever.entries = lambda: [Hit(id=id, score=0, caption=text) for id, text in texts.items()]  # type: ignore[method-assign]
    retriever.search = search  # type: ignore[method-assign]
    retriever.vectors = {"a": [1, 0], "b": [1, 0], "c": [1, 0]}
    assert flat(retriever) == Rates(threshold=0.5, recall=1, false_accepts=0)
    retriever.vectors = {"a": [1, 0], "b": [1, 0]}
    assert flat(retriever) == Rates(threshold=0.875, recall=2 / 3, false_accepts=0)


def test_queries_of_higher_means_are_compared_by_what_exceeds_them() -> None:
    """The second caption scores 0.2 more with every image: no cosine separates the two, a margin does."""
    retriever = FixedScores([(0.6, 0.4), (0.8, 0.6), (0.62, 0.41), (0.81, 0.62)])
    retriever.means = {"1": 0.8, "3": 0.8}
    result = calibrate(retriever, sample_of(retriever))
    assert (result.flat.recall, result.flat.false_accepts) != (1, 0)
    assert (result.relative.recall, result.relative.false_accepts) == (1, 0)
    assert 0.4 + 0.02 < result.relative.threshold <= 0.8 - SHARE * 0.8


def test_a_threshold_is_raised_as_far_as_one_of_twenty_captions_is_lost() -> None:
    own = [0.5, *[0.8 + place / 1000 for place in range(19)]]
    assert choose(own, [0.1] * 20).threshold == 0.5
    assert choose(own * 2, [0.1] * 40).threshold == 0.5
    longer = [0.5, *[0.8 + place / 1000 for place in range(40)]]
    assert choose(longer, [0.1] * 41) == Rates(threshold=0.8, recall=40 / 41, false_accepts=0)
    assert choose(own[:18], [0.1] * 18).threshold == 0.3
