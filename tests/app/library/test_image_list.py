"""List of a library's images: filters, keys, and no file of it is read for a page."""

import sys
from pathlib import Path
from typing import Any

import pytest
from support.library_place import CAPTION, HOSTILE

from pleinair.app.api import home
from pleinair.app.library.image_list import ImageList
from pleinair.app.library.opened import OpenLibrary
from pleinair.app.library.thumbnails import thumbnail
from pleinair.app.settings import load
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.licenses import is_free
from pleinair.tools.types import NotFound

UNLICENSED = "unlicensed.png"
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


@pytest.fixture(scope="module", params=["indexed", "not indexed"])
def images(shelf: Path, request: pytest.FixtureRequest) -> ImageList:
    if request.param == "indexed":
        OpenLibrary(load(), home()).search("kestrel", 1)
        return OpenLibrary(load(), home(), builds_index=False).images
    return ImageList(Library.open(shelf / "library"))


def test_no_file_is_opened_for_a_page_of_5000_images(tmp_path: Path) -> None:
    images = ImageList(large(tmp_path, 5000))
    COUNTING[0] = True
    try:
        for first in range(0, 5000, 600):
            items, total = images.page("", "any", first, 60)
            assert total == 5000 and len({images.key(item) for item in items}) == len(items)
            assert [item.id for item in items] == [f"{first + at:05}.jpg" for at in range(60)]
        items, total = images.page("BIRD 4999", "any", 0, 60)
        assert [item.id for item in items] == ["04999.jpg"] and total == 1
        items, total = images.page("bird 49", "any", 100, 60)
        assert total == 111 and [item.caption for item in items][:1] == ["bird 4989"] and len(items) == 11
        assert images.page("", "known", 0, 60).total == 0
    finally:
        COUNTING[0] = False
    assert not OPENED


def test_filters_by_words_and_licenses(images: ImageList) -> None:
    def ids(words: str, licenses: Any) -> list[str]:
        items, total = images.page(words, licenses, 0, 99)
        assert total == len(items)
        return [item.id for item in items]

    assert ids("KESTREL field", "any") == [UNLICENSED] and ids("kest", "any") == [UNLICENSED]
    assert ids("kestrel sea", "any") == [] and ids("kestrel", "known") == [] and ids("estrel", "any") == []
    assert ids("", "free") == [f"{number}.png" for number in range(6)]
    assert len(ids("", "known")) == 8 and len(ids("", "any")) == 9
    assert images.counts == {"any": 9, "known": 8, "free": 6} and images.captions == 9
    assert ids("<script>", "any") == [HOSTILE] and images.get(HOSTILE).caption == CAPTION
    assert ids("?!", "any") == [] and ids(' "', "free") == [] and ids('kestrel" OR "picture', "any") == []
    assert ids("unlicensed.png", "any") == [UNLICENSED] and ids("copy of 1.PNG", "any") == ["copy of 1.png"]
    assert ids("copy", "any") == ["copy of 1.png"] and ids("png", "any") == []  # the ending is no word
    assert ids("\ue000free", "any") == []


@pytest.mark.parametrize(
    "words", ["ecole", "École", "ÉCOLE Tokyo", "東京", "京の", "straße", "STRASSE", "wren_02"]
)
def test_words_of_all_scripts_are_found_without_case_and_accents(tmp_path: Path, words: str) -> None:
    library = Library({"": str(tmp_path)})
    caption = "l'école près de Tokyo, 東京の夜, eine Straße"
    library.items = {"a/wren_02.jpg": Item("a/wren_02.jpg", 1, 1, caption), "b.jpg": Item("b.jpg", 1, 1, "x")}
    assert [item.id for item in ImageList(library).page(words, "any", 0, 9).items] == ["a/wren_02.jpg"]


def test_an_image_is_found_by_its_whole_key(images: ImageList) -> None:
    key = images.key(images.get("3.png"))
    assert images.by_key(key) == images.by_hit(key[:32]) == images.get("3.png")
    other = "0" if key[31] != "0" else "1"
    assert images.by_hit(f"{key[:31]}{other}") is None
    assert images.by_key(key[:32] + "0" * 32) is None  # of the file as it was before


@pytest.mark.parametrize(
    "id", ["../metadata.jsonl", "/etc/passwd", "metadata.jsonl", "", "0.png/", "./0.png"]
)
def test_an_id_is_no_path(images: ImageList, id: str) -> None:
    with pytest.raises(NotFound):
        images.get(id)
    assert images.by_key(id) is None


def test_a_thumbnail_is_decoded_once_and_changes_with_the_file(shelf: Path) -> None:
    library = shelf / "other"
    library.mkdir()
    (library / "a.png").write_bytes((shelf / "library" / "0.png").read_bytes())
    (library / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    images = ImageList(Library.open(library))
    key = images.key(images.get("a.png"))
    data = thumbnail(images, key, "small", home())
    assert data and data[8:12] == b"WEBP"
    (library / "a.png").write_bytes(b"no image")
    assert thumbnail(images, key, "small", home()) == data
    assert ImageList(Library.open(library)).key(images.get("a.png")) == key
    assert thumbnail(images, images.key(images.get("damaged.png")), "small", home()) is None
    assert thumbnail(images, "0" * 64, "small", home()) is None


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
