"""Several texts in one search: the hits are those of one search each, and each text is encoded once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.quick_engines import Hashes, speckled

from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.compose import Corpus, RetrievalOptions, compose
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.filters import Filtered, without
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.text_cache import TextVectors
from pleinair.tools.retrieve import retrieve, retrieve_all, search_all
from pleinair.tools.types import Concept, Hit, ModelFault, Retriever

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

TEXTS = ["a wren", "an oak by a pond", "a red car", "pond", "a finch 3"]
COUNT = 40


class Counting(Hashes):
    """Encoder that records the texts of each call."""

    def __init__(self, salt: str = "") -> None:
        super().__init__(salt)
        self.calls: list[list[str]] = []

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        return super().encode_text(texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of which every second one may be used and every fifth one is a copy of the one before."""
    library = tmp_path_factory.mktemp("place") / "library"
    library.mkdir()
    for number in range(COUNT):
        colour = number - (number % 5 == 4)
        speckled(8, (6 * colour, 255 - 6 * colour, 90)).save(library / f"{number:02}.png")
    lines = [
        {"file_name": f"{n:02}.png", "text": TEXTS[n % 3], "license": ("CC0-1.0", "")[n % 2]}
        for n in range(COUNT)
    ]
    (library / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return library


Open = Callable[..., tuple[Retriever, Counting]]


@pytest.fixture
def opened(folder: Path) -> Open:
    def build(text_cache: Path | None = None, **options: Any) -> tuple[Retriever, Counting]:
        library, encoder, second = Library.open(folder), Counting(), Counting("2")

        def dense(encoder: Counting) -> IndexRetriever:
            place = folder.parent / f"index-{encoder.id}"
            return IndexRetriever(library, build_index(library, encoder, place), encoder, text_cache)

        composed = RetrievalOptions(**options)
        corpus = Corpus(composed, lambda: library, lambda: dense(encoder), lambda: dense(second))
        return compose(composed, corpus), encoder

    return build


@pytest.mark.parametrize("method", ["dense", "lexical", "hybrid", "both"])
@pytest.mark.parametrize(
    "options", [{}, {"licenses": ("CC0-1.0",)}, {"rerank": "bm25"}, {"deduplicate": 0.0, "threshold": 0.2}]
)
def test_the_hits_are_those_of_one_search_each(opened: Open, method: str, options: dict[str, Any]) -> None:
    retriever, _ = opened(method=method, **options)
    for k in (1, 5):
        expected = [search_all(retriever, [text], k, 0)[0] for text in TEXTS]
        assert search_all(retriever, TEXTS, k, 0) == expected
        assert any(expected)


@pytest.mark.parametrize("method", ["dense", "hybrid"])
def test_concepts_are_retrieved_as_one_by_one_and_encoded_in_one_call(opened: Open, method: str) -> None:
    retriever, encoder = opened(method=method, threshold=0.9, licenses=("free",))
    concepts = [Concept(name=name, caption=text) for name, text in zip("abcde", TEXTS, strict=True)]
    concepts[1] = Concept(name="wren", caption=TEXTS[1])
    arguments: dict[str, Any] = {"retriever": retriever, "k": 4, "threshold": 0.9, "with_name": True}
    together = retrieve_all(concepts, **arguments)
    assert encoder.calls[0] == TEXTS
    assert encoder.calls[1:] == ([["a", "wren", "c", "d", "e"]] if method == "hybrid" else [])
    assert together == [retrieve(concept, **arguments) for concept in concepts]
    assert [retrieval.concept for retrieval in together] == [concept.name for concept in concepts]


def test_a_filter_searches_again_for_the_texts_that_lack_hits_alone() -> None:
    class Ranked:
        def __init__(self) -> None:
            self.asked: list[tuple[list[str], int]] = []

        def search_many(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
            self.asked.append((list(queries), k))
            return [
                [Hit(id=f"{'x' if place < int(text) else ''}{place}", score=0) for place in range(50)][:k]
                for text in queries
            ]

        def search(self, query: str, k: int) -> list[Hit]:
            return self.search_many([query], k)[0]

        def open(self, id: str) -> Any:
            raise AssertionError("no image is opened")

        entries: Any = open

    ranked = Ranked()
    hits = Filtered(ranked, without([f"x{n}" for n in range(50)])).search_many(["0", "7", "60", "9"], 3)
    assert [[hit.id for hit in of_text] for of_text in hits] == [
        ["0", "1", "2"],
        ["7", "8", "9"],
        [],
        ["9", "10", "11"],
    ]
    assert ranked.asked == [(["0", "7", "60", "9"], 6), (["7", "60", "9"], 24), (["60"], 96)]


class Single:
    """Retriever of a third party: it has `search` alone, and takes the seed."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def search(self, query: str, k: int, seed: int = -1) -> list[Hit]:
        self.seeds.append(seed)
        return [Hit(id=query, score=0.5)]

    def open(self, id: str) -> Any:
        raise AssertionError("no image is opened")

    def entries(self) -> list[Hit]:
        return []


class Several(Single):
    def __init__(self, rankings: Any) -> None:
        super().__init__()
        self.rankings = rankings

    def search_many(self, queries: Sequence[str], k: int, seed: int = -1) -> Any:
        self.seeds.append(seed)
        return self.rankings


def test_a_retriever_with_search_alone_is_asked_one_by_one() -> None:
    retriever = Single()
    assert [hits[0].id for hits in search_all(retriever, TEXTS, 1, 7)] == TEXTS
    assert retriever.seeds == [7] * len(TEXTS)


def test_a_retriever_of_several_texts_gets_the_seed() -> None:
    retriever = Several([[], [Hit(id="a", score=1)]])
    assert search_all(retriever, ["a", "b"], 1, 7) == [[], [Hit(id="a", score=1)]]
    assert retriever.seeds == [7]


@pytest.mark.parametrize(("rankings", "fault"), [([[]], "1 of 2"), (None, "NoneType of 2"), ([[], 3], "int")])
def test_what_is_no_ranking_for_each_text_is_the_retrievers_fault(rankings: Any, fault: str) -> None:
    with pytest.raises(ModelFault, match=fault):
        search_all(Several(rankings), ["a", "b"], 1, 0)


def test_a_text_is_encoded_once_whichever_process_asks(tmp_path: Path) -> None:
    first, again, other = Counting(), Counting(), Counting("other")
    path = tmp_path / "cache" / "texts.sqlite"
    vectors = TextVectors(first, path).of(["a", "b", "a"])
    assert (vectors == Hashes().encode_text(["a", "b", "a"])).all()
    assert first.calls == [["a", "b"]]
    assert (TextVectors(again, path).of(["b", "c"]) == Hashes().encode_text(["b", "c"])).all()
    assert again.calls == [["c"]]
    assert (TextVectors(other, path).of(["a"]) == Hashes("other").encode_text(["a"])).all()
    assert other.calls == [["a"]]


def test_a_search_uses_the_cached_vectors(opened: Open, tmp_path: Path) -> None:
    expected = search_all(opened(method="dense")[0], TEXTS, 3, 0)
    for calls in ([TEXTS], []):
        retriever, encoder = opened(tmp_path / "texts.sqlite", method="dense")
        assert search_all(retriever, TEXTS, 3, 0) == expected
        assert encoder.calls == calls


def test_threads_share_the_file(tmp_path: Path) -> None:
    texts = [str(number) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        cache = TextVectors(Counting(), tmp_path / "texts.sqlite")
        results = list(pool.map(lambda n: cache.of(texts[n : n + 8]), range(32)))
    expected = Hashes().encode_text(texts)
    assert all((vectors == expected[n : n + 8]).all() for n, vectors in enumerate(results))


def test_without_a_usable_file_texts_are_remembered_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "texts.sqlite").write_bytes(b"no database" * 99)
    encoder = Counting()
    cache = TextVectors(encoder, tmp_path / "texts.sqlite")
    for _ in range(2):
        assert (cache.of(["a"]) == Hashes().encode_text(["a"])).all()
    assert encoder.calls == [["a"]]
    assert len(caplog.records) == 1


def test_a_vector_that_is_not_finite_is_not_cached(tmp_path: Path) -> None:
    class Broken(Hashes):
        def encode_text(self, texts: Sequence[str]) -> Vectors:
            return np.full((len(texts), 4), np.nan, np.float32)

    with pytest.raises(ModelFault, match="no finite vector"):
        TextVectors(Broken(), tmp_path / "texts.sqlite").of(["a"])
    assert np.isfinite(TextVectors(Hashes(), tmp_path / "texts.sqlite").of(["a"])).all()
