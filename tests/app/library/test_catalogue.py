"""Contents of a library: filters, keys, and no file is read for a page."""

import sys
from pathlib import Path
from typing import Any

import pytest
from support.library_place import CAPTION, HOSTILE

from pleinair.app.api import home
from pleinair.app.engines import open_library
from pleinair.app.library.catalogue import Catalogue
from pleinair.app.library.thumbnails import thumbnail
from pleinair.app.settings import load
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.licenses import is_free
from pleinair.tools.types import NotFound

OPENED: list[str] = []
COUNTING = [False]


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if COUNTING[0] and event in ("open", "os.scandir", "os.listdir"):
        OPENED.append(str(arguments[0]))


sys.addaudithook(_count)


def large(folder: Path, count: int) -> Library:
    """Return a library of many images, none of which there is."""
    library = Library({"": str(folder)})
    items = (Item(f"{number:05}.jpg", 9, number, caption=f"bird {number}") for number in range(count))
    library.items = {item.id: item for item in items}
    return library


@pytest.fixture(scope="module")
def catalogue(shelf: Path) -> Catalogue:
    return Catalogue(open_library(load(), home()))


def test_no_file_is_opened_for_a_page_of_5000_images(tmp_path: Path) -> None:
    catalogue = Catalogue(large(tmp_path, 5000))
    COUNTING[0] = True
    try:
        for first in range(0, 5000, 60):
            items, total = catalogue.page("", "any", first, 60)
            assert total == 5000 and len({catalogue.key(item) for item in items}) == len(items)
        items, total = catalogue.page("BIRD 4999", "any", 0, 60)
        assert [item.id for item in items] == ["04999.jpg"] and total == 1
        assert catalogue.page("", "known", 0, 60).total == 0
    finally:
        COUNTING[0] = False
    assert not OPENED


def test_filters_by_words_and_licenses(catalogue: Catalogue) -> None:
    def ids(words: str, licenses: Any) -> list[str]:
        return [item.id for item in catalogue.page(words, licenses, 0, 99).items]

    assert ids("KESTREL field", "any") == ["unlicensed.png"]
    assert ids("kestrel sea", "any") == [] and ids("kestrel", "known") == []
    assert ids("", "free") == [f"{number}.png" for number in range(6)]
    assert len(ids("", "known")) == 8 and len(ids("", "any")) == 9
    assert catalogue.counts == {"any": 9, "known": 8, "free": 6}
    assert ids("<script>", "any") == [HOSTILE] and catalogue.get(HOSTILE).caption == CAPTION


@pytest.mark.parametrize(
    "id", ["../metadata.jsonl", "/etc/passwd", "metadata.jsonl", "", "0.png/", "./0.png"]
)
def test_an_id_is_no_path(catalogue: Catalogue, id: str) -> None:
    with pytest.raises(NotFound):
        catalogue.get(id)
    assert catalogue.by_key(id) is None


def test_a_thumbnail_is_decoded_once_and_changes_with_the_file(shelf: Path) -> None:
    library = shelf / "other"
    library.mkdir()
    (library / "a.png").write_bytes((shelf / "library" / "0.png").read_bytes())
    (library / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    catalogue = Catalogue(Library.open(library))
    key = catalogue.key(catalogue.get("a.png"))
    data = thumbnail(catalogue, key, "small", home())
    assert data and data[8:12] == b"WEBP"
    (library / "a.png").write_bytes(b"no image")
    assert thumbnail(catalogue, key, "small", home()) == data
    assert Catalogue(Library.open(library)).key(catalogue.get("a.png")) == key
    assert thumbnail(catalogue, catalogue.key(catalogue.get("damaged.png")), "small", home()) is None
    assert thumbnail(catalogue, "0" * 64, "small", home()) is None


@pytest.mark.parametrize(
    ("license", "free"),
    [
        ("CC0-1.0", True), ("CC BY 4.0", True), ("cc-by-sa-3.0", True), ("MIT", True), ("Apache 2.0", True),
        ("public domain", True), ("CC BY-NC 4.0", False), ("CC-BY-ND-4.0", False), ("CC-BY-NC-SA-2.0", False),
        ("unknown", False), ("", False), ("all rights reserved", False), ("CC BY", True),
    ],
)  # fmt: skip
def test_a_license_is_free_only_where_it_is_recognised(license: str, free: bool) -> None:
    assert is_free(license) == free
