"""A threshold for each query, relative to its scores over a sample of the library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from support.colour_encoder import ColourEncoder, build, paint, write_squares
from support.fake_retriever import FakeRetriever, corpus, unit

from pleinair.tools.retrieval.calibrate import open_threshold
from pleinair.tools.retrieval.compose import Corpus, RetrievalOptions, Thresholded, compose, threshold_of
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.threshold import (
    SHARE,
    RelativeThreshold,
    load_threshold,
    sample_of,
    save_threshold,
)
from pleinair.tools.retrieve import retrieve
from pleinair.tools.types import BadInput, Concept, Hit, Retrieval

CAPTIONS = {"a": "a wren", "b": "a finch", "c": "a cat"}
ANGLES = {"a": 0.0, "b": 60.0, "c": 90.0}
FINCH = Concept(name="finch", caption="a finch")


class Texts(FakeRetriever):
    """Retriever by the cosines of its vectors with texts at fixed angles."""

    def __init__(self, angles: dict[str, float]) -> None:
        super().__init__("abc", CAPTIONS, ANGLES)
        self.encoder = self  # type: ignore[assignment]
        self.texts = angles
        self.id = "texts"

    def encode_text(self, texts: list[str]) -> Any:
        return np.stack([unit(self.texts[text]) for text in texts])

    def search(self, query: str, k: int) -> list[Hit]:
        scores = {id: float(unit(self.texts[query]) @ unit(angle)) for id, angle in ANGLES.items()}
        ranked = sorted(scores, key=lambda id: -scores[id])
        return [self.hit(id, scores[id]).model_copy(update={"score_kind": "cosine"}) for id in ranked][:k]


def composed(margin: float, method: str = "dense", **texts: float) -> tuple[RetrievalOptions, Any]:
    options = RetrievalOptions(method=method, threshold="auto", deduplicate=0.0)
    dense = Texts({text.replace("_", " "): angle for text, angle in texts.items()})
    relative = RelativeThreshold(sample_of(dense), margin)
    searched = Corpus(options, lambda: pytest.fail("opened"), lambda: dense, None, lambda dense: relative)
    return options, compose(options, searched)


def test_the_threshold_is_the_margin_and_a_share_of_the_mean() -> None:
    sample = np.stack([unit(0), unit(60), unit(90)])
    scores = RelativeThreshold(sample, 0.4).of(unit(0)[None])
    assert scores.mean == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores.threshold == pytest.approx(0.4 + SHARE * 0.5)
    assert (scores.margin, scores.sample) == (0.4, 3)


def test_of_two_queries_with_equal_best_scores_the_one_with_the_lower_mean_finds_something() -> None:
    options, retriever = composed(0.84, a_wren=-10.0, a_robot=70.0)  # both have a best cosine of 0.985
    results = [
        retrieve(Concept(name=text, caption=text), retriever=retriever, k=3, threshold=threshold_of(options))
        for text in ("a wren", "a robot")
    ]
    assert [result.hits[0].score for result in results] == pytest.approx([0.9848, 0.9848], abs=1e-4)
    assert [result.abstained for result in results] == [False, True]
    wren, robot = results
    assert wren.threshold and robot.threshold and wren.threshold < 0.9848 < robot.threshold
    assert robot.query_scores and robot.query_scores.threshold == robot.threshold
    assert robot.reason == "best match 0.98 is under the threshold 1.03 of this query, whose mean is 0.76"


def test_the_scores_are_stored_once_and_not_with_the_hits() -> None:
    options, retriever = composed(0.1, a_finch=60.0)
    result = retrieve(FINCH, retriever=retriever, k=3, threshold=threshold_of(options))
    stored = result.model_dump(mode="json")
    assert stored["query_scores"]["margin"] == 0.1
    assert all("query_scores" not in hit for hit in stored["hits"])
    assert Retrieval.model_validate(stored) == result


def test_a_number_given_to_retrieve_comes_before_that_of_the_query() -> None:
    _, retriever = composed(0.9, a_finch=60.0)
    result = retrieve(FINCH, retriever=retriever, k=3, threshold=-1.0)
    assert (result.abstained, result.threshold, result.query_scores) == (False, -1.0, None)


@pytest.mark.parametrize(
    ("margin", "matches"), [(0.0, ["both", "similarity", "similarity"]), (0.99, ["caption", "", ""])]
)
def test_hybrid_hits_count_by_the_threshold_of_the_query(margin: float, matches: list[str]) -> None:
    options, retriever = composed(margin + 0.01, "hybrid", a_finch=50.0)
    result = retrieve(FINCH, retriever=retriever, k=3, threshold=threshold_of(options))
    assert [hit.matched_by for hit in result.hits][0] == matches[0]
    assert sorted(hit.matched_by for hit in result.hits) == sorted(matches)
    assert result.query_scores and result.threshold == result.query_scores.threshold


def test_a_search_by_the_name_keeps_the_threshold_of_the_caption() -> None:
    options, retriever = composed(0.9, "hybrid", a_robot=10.0, finch=60.0)
    concept = Concept(name="finch", caption="a robot")
    alone = retrieve(concept, retriever=retriever, k=3, threshold=threshold_of(options))
    named = retrieve(concept, retriever=retriever, k=3, threshold=threshold_of(options), with_name=True)
    assert (alone.abstained, named.abstained) == (True, False)
    assert named.query_scores == alone.query_scores


@pytest.mark.parametrize("method", ["lexical", "both"])
def test_methods_without_cosines_have_no_threshold(method: str) -> None:
    assert threshold_of(RetrievalOptions(method=method, threshold="auto")) == -1.0


@pytest.mark.parametrize("value", ["relative", "0.2x", 1.5])
def test_other_thresholds_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        RetrievalOptions(threshold=value)


def test_a_retriever_that_cannot_calibrate_refuses_auto() -> None:
    options = RetrievalOptions(method="dense", threshold="auto")
    with pytest.raises(BadInput, match="accepted: a cosine"):
        compose(options, corpus(options, FakeRetriever("abc", CAPTIONS, ANGLES)))


def dense_of(folder: Path, index_folder: Path, encoder: ColourEncoder | None = None) -> IndexRetriever:
    encoder = encoder or ColourEncoder()
    return IndexRetriever(Library.open(folder), build(folder, index_folder, encoder), encoder)


def test_a_stored_threshold_is_that_of_its_encoder_and_version(tmp_path: Path) -> None:
    folder = write_squares(tmp_path / "library")
    dense = dense_of(folder, tmp_path / "index")
    assert load_threshold(dense.index) is None
    save_threshold(dense.index, RelativeThreshold(sample_of(dense), 0.123))
    stored = load_threshold(dense.index)
    assert stored and stored.margin == 0.123
    assert np.array_equal(stored.sample, sample_of(dense))
    path = tmp_path / "index" / "threshold.safetensors"
    data = path.read_bytes()
    for broken in (data[:40], data.replace(b'"version":"2"', b'"version":"1"')):
        path.write_bytes(broken)
        assert load_threshold(dense.index) is None
    path.write_bytes(data)
    assert load_threshold(dense_of(folder, tmp_path / "index", ColourEncoder("colour-2")).index) is None


def test_a_threshold_is_calibrated_anew_when_a_tenth_of_the_library_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    for number in range(40):
        paint(folder, f"{number:02}.png", (250 - number, 6 * number, 90))

    def captions(count: int, word: str = "red") -> None:
        lines = [f"{number:02}.png,{word if number % 2 else 'blue'}" for number in range(count)]
        (folder / "metadata.csv").write_text("\n".join(["file_name,text", *lines]), encoding="utf-8")

    def is_stored() -> bool:
        return load_threshold(dense_of(folder, tmp_path / "index").index) is not None

    captions(20)
    open_threshold(dense_of(folder, tmp_path / "index"))
    for number in range(3):
        paint(folder, f"new{number}.png", (9, 9, 200 + number))
        paint(folder, f"{number:02}.png", (9, 200 + number, 9))
    captions(23)
    assert is_stored()
    paint(folder, "03.png", (9, 203, 9))  # the fourth of 40 with other content
    assert not is_stored()
    open_threshold(dense_of(folder, tmp_path / "index"))
    captions(28)
    assert not is_stored()
    open_threshold(dense_of(folder, tmp_path / "index"))
    for number in range(3, 8):
        paint(folder, f"new{number}.png", (9, 9, 200 + number))
    assert not is_stored()


def test_queries_are_embedded_once_for_their_hits_and_their_threshold(tmp_path: Path) -> None:
    class Counting(ColourEncoder):
        def encode_text(self, texts: Sequence[str]) -> Any:
            counted.extend(texts)
            return super().encode_text(texts)

    counted = list[str]()
    dense = dense_of(write_squares(tmp_path / "library"), tmp_path / "index", Counting())
    retriever = Thresholded(dense, RelativeThreshold(sample_of(dense), 0.1))
    for _ in range(2):
        hits = retriever.search_many(["red", "blue"], 2)
    assert counted == ["red", "blue"]
    assert [ranking[0].id for ranking in hits] == ["red.png", "blue.png"]
    assert all(hit.query_scores for ranking in hits for hit in ranking)


def test_the_sample_is_even_and_at_most_its_size() -> None:
    angles = {chr(97 + place): float(place) for place in range(20)}
    retriever = FakeRetriever("".join(angles), angles=angles)
    assert len(sample_of(retriever)) == 20
    assert np.array_equal(sample_of(retriever, 3), np.stack([unit(0), unit(10), unit(19)]))
