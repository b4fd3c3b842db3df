"""Retrieval methods that use no vectors, built in and as plug-ins, over a real library."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.fake_retriever import FakeRetriever
from support.plugins import install_package
from support.quick_engines import speckled
from support.source_tree import ROOT

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.retrieval.compose import Corpus, Dense, RetrievalOptions, compose
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieve import search
from pleinair.tools.types import BadInput, Retriever

ENTRY_POINTS = "[pleinair.retriever]\nvaried = retriever:Varied\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write six images with captions, of which the last two are a copy and a damaged file."""
    library = tmp_path / "library"
    library.mkdir()
    for number in range(5):
        speckled(8, (40 * (number % 4), 0, 0)).save(library / f"{number}.png")
    (library / "5.png").write_bytes((library / "0.png").read_bytes()[:40])
    lines = [
        json.dumps({"file_name": f"{n}.png", "text": f"a finch {n}", "license": f"L{n}"}) for n in range(6)
    ]
    (library / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return library


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the example as a distribution."""
    monkeypatch.syspath_prepend(install_package(tmp_path / "site", "varied", ENTRY_POINTS))
    monkeypatch.syspath_prepend(ROOT / "examples")
    yield
    sys.modules.pop("retriever", None)


def opened(folder: Path, **options: Any) -> Retriever:
    def no_index() -> Dense:
        raise AssertionError("the index was opened")

    composed = RetrievalOptions(**options)
    return compose(composed, Corpus(composed, lambda: Library.open(folder), no_index))


def find(folder: Path, query: str, k: int = 9, seed: int = 0, **options: Any) -> list[str]:
    return [hit.id.removesuffix(".png") for hit in search(opened(folder, **options), query, k, seed)]


def test_lexical_retrieval_opens_no_index_and_removes_copies_and_damaged_files(folder: Path) -> None:
    assert find(folder, "finch 2", 1, method="lexical") == ["2"]
    assert find(folder, "finch", method="lexical") == list("0123")
    assert find(folder, "finch", method="lexical", deduplicate=0) == list("01234")
    assert find(folder, "finch", method="lexical", licenses=("l4", "l5")) == ["4"]
    assert find(folder, "finch 2", method="lexical", rerank="bm25")[0] == "2"


def test_lexical_retrieval_lists_and_opens_the_files_of_the_library(folder: Path) -> None:
    retriever = opened(folder, method="lexical")
    assert [entry.id for entry in retriever.entries()] == [f"{number}.png" for number in range(6)]
    assert retriever.open("1.png").size == (8, 8)
    with pytest.raises(BadPicture):
        retriever.open("5.png")


@pytest.mark.usefixtures("installed")
def test_a_plug_in_searches_with_the_runs_seed(folder: Path) -> None:
    orders = [find(folder, "a finch", method="varied", seed=seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert {frozenset(order) - {"0", "4"} for order in orders} == {frozenset("123")}  # 0 and 4 are copies
    reranked = find(folder, "finch 2", method="varied", rerank="bm25", licenses=("L2", "L3"), seed=1)
    assert reranked == ["2", "3"]


@pytest.mark.usefixtures("installed")
def test_a_plug_in_is_built_with_its_arguments(folder: Path) -> None:
    assert find(folder, "finch 2", method="varied", arguments={"shared": 2}) == ["2"]
    with pytest.raises(
        BadInput, match=r"retrieval\.arguments\.share = 2: .*no such argument; accepted: shared"
    ):
        find(folder, "finch 2", method="varied", arguments={"share": 2})


def test_a_library_that_opens_slowly_blocks_no_other(folder: Path) -> None:
    blocked, opens = threading.Event(), threading.Event()

    def slow() -> Any:
        blocked.set()
        opens.wait(300)
        return fake

    fake, options = FakeRetriever("ab"), RetrievalOptions(method="dense")
    waiting, other = (Corpus(options, lambda: pytest.fail("listed"), open) for open in (slow, lambda: fake))
    thread = threading.Thread(target=lambda: waiting.dense)
    thread.start()
    blocked.wait(300)
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: other.dense).result(10) is fake
    finally:
        opens.set()
        thread.join()
