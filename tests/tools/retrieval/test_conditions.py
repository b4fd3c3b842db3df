"""Conditions on license, tags and size: the images that meet them are searched alone, whatever the method."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.quick_engines import Hashes, speckled

from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.compose import Corpus, RetrievalOptions, compose
from pleinair.tools.retrieval.conditions import (
    Conditions,
    EmptySelection,
    count_met,
    explain_empty,
    select,
)
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieve import retrieve
from pleinair.tools.types import Concept, Retriever

COUNT = 60
LICENSES = ("CC0-1.0", "CC BY 4.0", "", "proprietary")
TAGS: tuple[list[str], ...] = (["Bird", "blue"], [], ["bird"], ["Straße"], ["fish"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("place") / "library"
    library.mkdir()
    lines = []
    for n in range(COUNT):
        speckled(8 + n % 7, (4 * n, 255 - 4 * n, 90)).resize((8 + n % 7, 20)).save(library / f"{n:02}.png")
        license, tags = LICENSES[n % 4], TAGS[n % 5]
        lines.append({"file_name": f"{n:02}.png", "text": "a wren", "license": license, "tags": tags})
    (library / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return library


@pytest.fixture(scope="module")
def indexed(folder: Path) -> Index:
    return build_index(Library.open(folder), Hashes(), folder.parent / "index")


Search = Callable[..., Retriever]


@pytest.fixture
def retriever(folder: Path, indexed: Index) -> Search:
    def build(**options: Any) -> Retriever:
        library = Library.open(folder)
        dense = IndexRetriever(library, indexed, Hashes())
        composed = RetrievalOptions(**{"method": "dense", "deduplicate": 0, **options})
        return compose(composed, Corpus(composed, lambda: library, lambda: dense))

    return build


CASES: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({"licenses": ("cc-by 4.0",)}, lambda n: n % 4 == 1),
    ({"licenses": ("free",)}, lambda n: n % 4 in (0, 1)),
    ({"licenses": ("known", "unknown")}, lambda n: True),
    ({"tags": ("BIRD",)}, lambda n: n % 5 in (0, 2)),
    ({"tags": ("fish", "STRASSE")}, lambda n: n % 5 in (3, 4)),
    ({"min_side": 12}, lambda n: n % 7 >= 4),
    ({"min_side": 8}, lambda n: True),
    (
        {"licenses": ("free",), "tags": ("bird",), "min_side": 11},
        lambda n: n % 4 < 2 and n % 5 in (0, 2) and n % 7 > 2,
    ),
    ({"tags": ("whale",)}, lambda n: False),
    ({"licenses": ("MIT",)}, lambda n: False),
    ({"min_side": 21}, lambda n: False),
]


@pytest.mark.parametrize(("options", "meets"), CASES)
def test_rows_that_meet_conditions_are_selected(
    indexed: Index, options: dict[str, Any], meets: Callable[[int], bool]
) -> None:
    selection = select(indexed.catalogue, Conditions(**options))
    expected = [n for n in range(COUNT) if meets(n)]
    assert (list(range(COUNT)) if selection is None else selection.rows.tolist()) == expected
    assert (selection is None) == (len(expected) == COUNT)
    assert count_met(indexed.catalogue, Conditions(**options)) == len(expected)
    assert (explain_empty(indexed.catalogue, Conditions(**options)) is None) == bool(expected)


@pytest.mark.parametrize("method", ["dense", "hybrid", "lexical"])
@pytest.mark.parametrize(("options", "meets"), CASES)
def test_every_method_returns_all_images_that_meet_them_and_no_others(
    retriever: Search, method: str, options: dict[str, Any], meets: Callable[[int], bool]
) -> None:
    hits = retriever(method=method, **options).search("a wren", COUNT)
    assert {hit.id for hit in hits} == {f"{n:02}.png" for n in range(COUNT) if meets(n)}
    ranking = [hit.id for hit in retriever(method=method).search("a wren", COUNT)]
    if method == "dense":
        assert [hit.id for hit in hits] == [id for id in ranking if meets(int(id[:2]))]


def test_the_vectors_of_other_images_are_not_compared(
    retriever: Search, indexed: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, sizes = Index.search, list[int]()

    def counting(self: Index, queries: Any, k: int, selection: Any = None) -> Any:
        sizes.append(len(self) if selection is None else len(selection.rows))
        return search(self, queries, k, selection)

    monkeypatch.setattr(Index, "search", counting)
    assert len(retriever(tags=("fish",)).search("a wren", 3)) == 3
    assert sizes == [COUNT // 5]


def test_without_its_license_filter_a_retriever_keeps_the_other_conditions(retriever: Search) -> None:
    narrow = retriever(licenses=("MIT",), tags=("fish",))
    assert narrow.search("a wren", 5) == []
    unlicensed = getattr(narrow, "unlicensed")  # noqa: B009 - not part of the protocol
    assert {int(hit.id[:2]) % 5 for hit in unlicensed.search("a wren", COUNT)} == {4}


def test_without_an_index_tags_and_sizes_are_read_from_the_images(folder: Path) -> None:
    library = Library.open(folder)
    options = RetrievalOptions(method="lexical", deduplicate=0, tags=("fish",), min_side=12)
    corpus = Corpus(options, lambda: library, lambda: pytest.fail("the lexical method needs no index"))
    hits = compose(options, corpus).search("a wren", COUNT)
    assert {hit.id for hit in hits} == {f"{n:02}.png" for n in range(COUNT) if n % 5 == 4 and n % 7 >= 4}


def empty(indexed: Index, **conditions: Any) -> EmptySelection:
    found = explain_empty(indexed.catalogue, Conditions(**conditions))
    assert found is not None
    return found


def test_conditions_that_no_image_meets_are_named_with_the_nearest_values(indexed: Index) -> None:
    tags = empty(indexed, tags=("fihs", "brid"))
    assert tags.field == "retrieval.tags"
    assert tags.unmet[0].model_dump() == {
        **{"setting": "retrieval.tags", "value": ("fihs", "brid"), "images": 0},
        "nearest": {"fish": 12, "bird": 24},
    }
    text = "retrieval.tags = ['fihs', 'brid']: met by no image; accepted, for example: 'fish' (12 images)"
    assert text in tags.message and "60 images" in tags.message
    assert empty(indexed, tags=("zzz",)).unmet[0].nearest == {"bird": 24, "blue": 12, "fish": 12}
    licenses = empty(indexed, licenses=("CC-BY-SA-4.0",)).unmet[0]
    assert list(licenses.nearest.items())[0] == ("CC-BY-4.0", 15)
    side = empty(indexed, min_side=400).unmet[0]
    assert (side.value, side.nearest) == (400, {"14": 8})


def test_conditions_that_exclude_one_another_are_all_named_with_their_images(indexed: Index) -> None:
    together = empty(
        indexed, licenses=("CC0-1.0",), tags=("fish",), min_side=14
    )  # 34.png alone is a large fish
    assert {cause.setting: cause.images for cause in together.unmet} == {
        **{"retrieval.licenses": 15, "retrieval.tags": 12, "retrieval.min_side": 8}
    }
    assert "retrieval.tags = ['fish']: met by 12 images" in together.message
    assert "none meets all of them" in together.message
    none = empty(indexed, licenses=("CC0-1.0",), tags=("whale",), min_side=8)
    assert [cause.setting for cause in none.unmet] == ["retrieval.tags"]


def test_a_retriever_names_what_no_image_meets(retriever: Search) -> None:
    concept = Concept(name="wren", caption="a wren")
    for method in ("dense", "lexical"):
        narrow = retriever(method=method, tags=("fihs",))
        retrieval = retrieve(concept, retriever=narrow, k=3, threshold=-1)
        assert retrieval.abstained and retrieval.unmet == {"retrieval.tags": 0}
        assert "'fish' (12 images)" in retrieval.reason
    assert not retrieve(concept, retriever=retriever(tags=("fish",)), k=3, threshold=-1).unmet


def test_before_a_library_is_indexed_tags_and_licenses_are_known(folder: Path) -> None:
    catalogue = Library.open(folder).as_catalogue()
    assert explain_empty(catalogue, Conditions(min_side=4000)) is None
    assert explain_empty(catalogue, Conditions(tags=("fish",), min_side=4000)) is None
    found = explain_empty(catalogue, Conditions(tags=("fihs",), min_side=4000))
    assert found and [cause.setting for cause in found.unmet] == ["retrieval.tags"]
