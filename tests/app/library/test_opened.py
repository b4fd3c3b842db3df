"""Search of the library: as the loop retrieves, by images, and what it needs."""

import os
import threading
from pathlib import Path

import pytest
from PIL import Image
from support import quick_engines as quick

from pleinair.app import engines
from pleinair.app.api import home
from pleinair.app.engines import open_retriever
from pleinair.app.libraries import has_changed, stored_library
from pleinair.app.library.opened import Libraries, NotIndexed, OpenLibrary, SearchResult
from pleinair.app.settings import Settings, load
from pleinair.tools.retrieval.compose import threshold_of
from pleinair.tools.retrieve import retrieve
from pleinair.tools.types import BadInput, Concept, Encoder, NotFound


@pytest.fixture(scope="module")
def library(shelf: Path) -> OpenLibrary:
    return OpenLibrary(load(), home())


@pytest.mark.parametrize("words", ["picture 3", "kestrel", "zubrin", "a picture of a zubrin"])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_a_search_by_words_is_what_a_run_retrieves(library: OpenLibrary, words: str, k: int) -> None:
    settings = load()
    run = retrieve(
        Concept(name=words, caption=words),
        retriever=open_retriever(settings, home()),
        k=k,
        threshold=threshold_of(settings.retrieval),
        with_name=True,
    )
    result = library.search(words, k)
    assert tuple(each.hit for each in result.hits) == run.hits
    assert [each.accepted for each in result.hits] == [run.accepts(hit) for hit in run.hits]
    assert (result.abstained, result.reason, result.threshold) == (run.abstained, run.reason, 0.9)


def test_nothing_fits_exactly_where_no_hit_is_accepted(library: OpenLibrary) -> None:
    assert library.search("zubrin", 4).abstained
    kestrel = library.search("kestrel", 4)
    assert not kestrel.abstained
    assert [each.hit.id for each in kestrel.hits if each.accepted] == ["unlicensed.png"]
    assert kestrel.hits[0].file.endswith("/library/unlicensed.png")


def test_an_image_finds_itself_and_the_like_finds_others(library: OpenLibrary, shelf: Path) -> None:
    with Image.open(shelf / "library" / "3.png") as image:
        result = library.search_image(image.convert("RGB"), 3)
    assert result.hits[0].hit.id == "3.png" and result.hits[0].hit.score == pytest.approx(1)
    assert (result.threshold, result.hits[0].accepted, result.abstained) == (None, None, False)
    like = library.search_like("1.png", 3)
    assert like.hits[0].hit.id == "copy of 1.png"
    assert len(like.hits) == 3 and "1.png" not in [each.hit.id for each in like.hits]


def test_what_cannot_be_searched_for_is_refused(library: OpenLibrary) -> None:
    with pytest.raises(BadInput, match="nothing to search for"):
        library.search(" ", 4)
    with pytest.raises(BadInput, match="5000 characters"):
        library.search("w" * 5000, 4)
    for id in ("../library/1.png", "/etc/passwd", "1.png\0", ""):
        with pytest.raises(NotFound):
            library.search_like(id, 4)


def test_a_page_shows_the_library_as_it_was_indexed(library: OpenLibrary, shelf: Path) -> None:
    library.search("kestrel", 1)
    opened = Libraries(home())
    assert opened.of(load()) is opened.of(load()) and opened.of(load()).is_indexed
    quick.speckled(16, (1, 2, 3)).save(shelf / "library" / "later.png")
    try:
        assert has_changed(load(), home())
        opened.forget()
        assert opened.of(load()).search("kestrel", 1).hits
        assert "later.png" not in opened.of(load()).library.items  # nor has the search indexed it
        assert has_changed(load(), home())
        OpenLibrary(load(), home()).search("kestrel", 1)
        assert not has_changed(load(), home())
        assert "later.png" in opened.of(load()).library.items  # it was indexed elsewhere
    finally:
        (shelf / "library" / "later.png").unlink()
        OpenLibrary(load(), home()).search("kestrel", 1)


def test_a_page_does_not_index_by_itself(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.speckled(16, (7, 2, 3)).save(shelf / "first.png")
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", str(shelf))
    opened = OpenLibrary(load(), home(), builds_index=False)
    assert "first.png" in opened.library.items and not opened.is_indexed
    with pytest.raises(NotIndexed, match="is not indexed yet"):
        opened.search("kestrel", 1)


def test_an_index_is_not_set_back_by_a_run_that_opened_the_earlier_one(shelf: Path) -> None:
    os.utime(shelf / "library", ns=(10**9, 10**9))  # so that the folder is at rest
    OpenLibrary(load(), home()).search("kestrel", 1)
    run = OpenLibrary(load(), home())
    assert run.is_indexed and "newest.png" not in run.library.items
    quick.speckled(16, (200, 2, 250)).save(shelf / "library" / "newest.png")
    try:
        OpenLibrary(load(), home()).search("kestrel", 1)
        like = run.search_image(quick.speckled(16, (200, 2, 250)), 1)
        assert [hit.hit.id for hit in like.hits] == ["newest.png"]
        stored = stored_library(load(), home())
        assert "newest.png" in stored.items
    finally:
        (shelf / "library" / "newest.png").unlink()
        OpenLibrary(load(), home()).search("kestrel", 1)


def test_searches_at_once_open_the_library_and_the_encoder_once(
    library: OpenLibrary, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    calls, real = list[str](), engines.build_encoder

    def counted(settings: Settings) -> Encoder:
        calls.append(settings.encoder.backend)
        return real(settings)

    monkeypatch.setattr(engines, "build_encoder", counted)
    opened, results = OpenLibrary(load(), home(), builds_index=False), list[SearchResult]()
    threads = [threading.Thread(target=lambda: results.append(opened.search("kestrel", 2))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and len(set(map(str, results))) == 1
    assert len(calls) == 1
