"""Libraries of data sets: links with captions, classes, licenses and sources; repeatable and resumable."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.data_set_folders import WRITERS, write_data_set

from pleinair.tools.data_sets import library as written
from pleinair.tools.data_sets.data_set import MARK
from pleinair.tools.data_sets.library import write_library
from pleinair.tools.data_sets.recognise import recognise
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput


def state(folder: Path) -> dict[str, tuple[int, int]]:
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file() and path.name != MARK}
    return {str(path.relative_to(folder)): (each.st_ino, each.st_mtime_ns) for path, each in files.items()}


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_a_library_has_every_example_with_its_captions_and_no_problem(tmp_path: Path, writer: str) -> None:
    layout, _, variant = writer.partition(":")
    write_data_set(layout, tmp_path / "data", variant=variant)
    data_set = recognise(tmp_path / "data")
    library = Library.open(write_library(data_set, data_set.examples, tmp_path / "library"))
    captions = {item.id: tuple(item.caption.split("\n")) for item in library.items.values()}
    assert captions == {e.path: e.captions or (e.class_name,) for e in data_set.examples}
    assert (library.problems, library.readers[0]) == ((), "jsonl")
    for example in data_set.examples:
        item = library.items[example.path]
        assert item.license not in ("", "unknown") and item.source
        assert layout == "aircraft" or library.path(example.path).samefile(data_set.file(example))
    assert all(set(source.reader.split()) == {"jsonl"} for source in library.sources if source.captions)


def test_an_image_with_a_license_of_its_own_keeps_it(tmp_path: Path) -> None:
    write_data_set("coco", tmp_path / "data")
    data_set = recognise(tmp_path / "data")
    library = Library.open(write_library(data_set, data_set.split("train"), tmp_path / "library"))
    assert {item.license for item in library.items.values()} == {"CC-BY-NC-ND-2.0"}
    assert all(item.source.startswith("http://flickr.com/") for item in library.items.values())


def test_a_second_call_changes_nothing_and_another_list_removes_the_rest(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "data")
    data_set, folder = recognise(tmp_path / "data"), tmp_path / "library"
    write_library(data_set, data_set.examples, folder)
    before = state(folder)
    write_library(data_set, data_set.examples, folder)
    assert state(folder) == before
    ducks = [example for example in data_set.split("train") if example.class_name == "Mandarin duck"]
    write_library(data_set, ducks, folder)
    assert set(Library.open(folder).items) == {example.path for example in ducks}
    assert len([path for path in folder.rglob("*") if path.is_dir()]) == 3  # CUB_200_2011/images/002.…
    assert all(data_set.file(example).is_file() for example in data_set.examples)


def test_a_stopped_call_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set("cub", tmp_path / "data")
    data_set, folder = recognise(tmp_path / "data"), tmp_path / "library"
    monkeypatch.setattr(written, "_PAUSE", 4)

    def stop(done: int, total: int) -> None:
        assert total == 9
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write_library(data_set, data_set.examples, folder, stop)
    assert len(state(folder)) == 4
    write_library(data_set, data_set.examples, folder)
    assert len(Library.open(folder).items) == 9


def test_a_changed_image_is_linked_again(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "data")
    data_set, folder = recognise(tmp_path / "data"), tmp_path / "library"
    write_library(data_set, data_set.examples, folder)
    first, other = data_set.examples[0], data_set.examples[-1]
    data_set.file(first).unlink()
    shutil.copy(data_set.file(other), data_set.file(first))
    write_library(data_set, data_set.examples, folder)
    assert (folder / first.path).samefile(data_set.file(first))


def test_without_hard_links_the_images_are_copied_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    write_data_set("cub", tmp_path / "data")
    data_set, folder = recognise(tmp_path / "data"), tmp_path / "library"
    with caplog.at_level(logging.WARNING):
        write_library(data_set, data_set.examples, folder)
    assert len(caplog.messages) == 1 and "are copied" in caplog.messages[0]
    before, caplog.records[:] = state(folder), []
    write_library(data_set, data_set.examples, folder)
    assert state(folder) == before and not caplog.messages
    assert len(Library.open(folder).items) == 9


def test_somebodys_folder_and_the_data_sets_own_are_refused(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "data")
    data_set = recognise(tmp_path / "data")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"mine")
    places = {"photos": "has files of its own", "data/library": "lies in it", ".": "holds the"}
    for folder, text in places.items():
        with pytest.raises(BadInput, match=text):
            write_library(data_set, data_set.examples, tmp_path / folder)
    assert (tmp_path / "photos" / "me.jpg").read_bytes() == b"mine"
    with pytest.raises(BadInput, match="no example"):
        write_library(data_set, [], tmp_path / "library")
    assert not (tmp_path / "library").exists()


def test_the_banner_of_aircraft_is_cut_off(tmp_path: Path) -> None:
    def with_banner(name: str, number: int) -> Image.Image:
        image = Image.new("RGB", (60, 80), (20, 20, 20 + number))
        image.paste((250, 250, 250), (0, 60, 60, 80))
        image.putpixel((5, 5), (200, 0, 0))
        return image

    write_data_set("aircraft", tmp_path / "data", draw=with_banner)
    data_set, folder = recognise(tmp_path / "data"), tmp_path / "library"
    library = Library.open(write_library(data_set, data_set.examples, folder))
    for id in library.items:
        image = library.picture(id)
        assert image.size == (60, 60)
        assert np.asarray(image)[50:].max() < 60
    before = state(folder)
    write_library(data_set, data_set.examples, folder)
    assert state(folder) == before
    with Image.open(data_set.file(data_set.examples[0])) as image:
        assert image.size == (60, 80)
