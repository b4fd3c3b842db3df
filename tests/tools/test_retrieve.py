from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pleinair.tools.retrieve import retrieve
from pleinair.tools.types import BadInput, Concept, Hit

FINCH = Concept(name="finch", caption="a blue jay on a branch")
SCORES = st.floats(-1, 1)


class Fixed:
    """Return the same scores for every query."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores
        self.queries: list[tuple[str, int]] = []

    def search(self, query: str, k: int) -> list[Hit]:
        if k < 1:
            raise BadInput("`k` is under 1.")
        self.queries.append((query, k))
        return [Hit(id=f"{place}.png", score=score) for place, score in enumerate(self.scores)][:k]

    def open(self, id: str) -> Image.Image:
        raise AssertionError("retrieval opens no image")

    def entries(self) -> list[Hit]:
        raise AssertionError("retrieval lists no images")


class Seeded(Fixed):
    """Score by the run's seed."""

    def search(self, query: str, k: int, seed: int = -1) -> list[Hit]:
        return [Hit(id="0.png", score=seed / 10)]


def test_the_caption_is_the_query_and_not_the_name() -> None:
    retriever = Fixed(0.4)
    retrieval = retrieve(FINCH, retriever=retriever, k=3, threshold=0.25)
    assert retriever.queries == [("a blue jay on a branch", 3)]
    assert (retrieval.concept, retrieval.query, retrieval.threshold) == ("finch", FINCH.caption, 0.25)


def test_hits_are_best_first_and_include_weak_ones() -> None:
    retrieval = retrieve(FINCH, retriever=Fixed(0.4, 0.3, 0.1), k=3, threshold=0.25)
    assert [hit.score for hit in retrieval.hits] == [0.4, 0.3, 0.1]
    assert (retrieval.abstained, retrieval.reason) == (False, "")


def test_a_weak_best_hit_abstains_with_score_and_threshold() -> None:
    retrieval = retrieve(FINCH, retriever=Fixed(0.12, 0.1), k=2, threshold=0.25)
    assert retrieval.abstained
    assert retrieval.reason == "best match 0.12 is under the threshold 0.25"
    assert len(retrieval.hits) == 2


def test_no_hits_abstain() -> None:
    retrieval = retrieve(FINCH, retriever=Fixed(), k=2, threshold=-1)
    assert (retrieval.abstained, retrieval.hits) == (True, ())
    assert retrieval.reason == "no image in the library was found"


def test_a_retriever_with_a_seed_parameter_receives_the_runs_seed() -> None:
    assert retrieve(FINCH, retriever=Seeded(), k=1, threshold=-1, seed=7).hits[0].score == 0.7


def test_bad_input_is_passed_on() -> None:
    with pytest.raises(BadInput):
        retrieve(FINCH, retriever=Fixed(0.5), k=0, threshold=0)


@settings(deadline=None)
@given(st.lists(SCORES, min_size=1), SCORES)
def test_it_abstains_exactly_if_no_hit_reaches_the_threshold(scores: list[float], threshold: float) -> None:
    ranking = Fixed(*sorted(scores, reverse=True))
    retrieval = retrieve(FINCH, retriever=ranking, k=len(scores), threshold=threshold)
    assert retrieval.abstained == all(score < threshold for score in scores)
    assert retrieval.abstained == bool(retrieval.reason)


class Hybrid(Fixed):
    """Match the dog's image by its name only, and another one by its similarity to the caption."""

    def search(self, query: str, k: int) -> list[Hit]:
        dog = Hit(id="dog.png", score=0.01, score_kind="rrf")
        near = Hit(id="near.png", score=0.02, score_kind="rrf", matched_by="similarity")
        return [near, dog] if "small" in query else [dog.model_copy(update={"matched_by": "caption"})]


@pytest.mark.parametrize("with_name", [True, False])
def test_an_image_whose_caption_has_the_name_is_found_beside_those_of_the_caption(with_name: bool) -> None:
    concept = Concept(name="Biscuit", caption="a small brown dog called Biscuit")
    retrieval = retrieve(concept, retriever=Hybrid(), k=3, threshold=0.5, with_name=with_name)
    assert [hit.id for hit in retrieval.hits] == ["near.png", "dog.png"]
    assert [retrieval.accepts(hit) for hit in retrieval.hits] == [True, with_name]


@pytest.mark.parametrize(
    ("hits", "reason"),
    [
        ([Hit(id="a", score=0.01, score_kind="rrf")], "no caption has its words"),
        (
            [Hit(id="a", score=0.01, score_kind="rrf", similarity=0.3)],
            "best match 0.30 is under the threshold 0.50; no caption has its words",
        ),
        ([Hit(id="a", score=0.01, score_kind="rrf", matched_by="caption")], ""),
        ([Hit(id="a", score=9.0, score_kind="bm25")], ""),
    ],
)
def test_hybrid_hits_count_by_their_match_and_not_by_their_score(hits: list[Hit], reason: str) -> None:
    class Listed(Fixed):
        def search(self, query: str, k: int) -> list[Hit]:
            return hits

    retrieval = retrieve(FINCH, retriever=Listed(), k=3, threshold=0.5)
    assert (retrieval.abstained, retrieval.reason) == (bool(reason), reason)
