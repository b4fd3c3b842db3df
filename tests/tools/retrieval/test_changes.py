"""A library is read from its catalogue as long as nothing has changed, and walked through otherwise."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.colour_encoder import ColourEncoder, build, paint, write_squares
from support.container_files import tar

from pleinair.tools.images.limits import MAX_PIXELS
from pleinair.tools.retrieval import changes
from pleinair.tools.retrieval.changes import LibraryChanges, current_library, find_changes, save_stamps
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.roots.opening import Folders
from pleinair.tools.storage.files import stamp_of
from pleinair.tools.types import BadInput, Cancelled, NoLibrary

HOUR = 3600 * 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_squares(tmp_path / "library")
    (folder / "birds").mkdir()
    paint(folder, "birds/wren.png", (9, 90, 200))
    (folder / "birds/wren.txt").write_text("a wren", encoding="utf-8")
    for place in (folder, folder / "birds"):
        os.utime(place, ns=(time.time_ns() - HOUR,) * 2)
    return folder


def current(folder: Folders, index_folder: Path, **options: Any) -> Library | None:
    arguments = {"readers": (), "captions": None, "max_pixels": Library.open(folder).max_pixels}
    return current_library(index_folder, folder, **(arguments | options))


def indexed(folder: Path, index_folder: Path, captions: Path | None = None) -> Path:
    library = Library.open(folder, captions=captions)
    from pleinair.tools.retrieval.build import build_index

    index = build_index(library, ColourEncoder(), index_folder)
    save_stamps(index_folder, index.manifest.catalogue, library.stamps)
    return index_folder


def add(folder: Path) -> None:
    paint(folder, "new.png", (1, 2, 3))


def remove(folder: Path) -> None:
    (folder / "birds/wren.png").unlink()


def rename(folder: Path) -> None:
    (folder / "red.png").rename(folder / "scarlet.png")


def write_in_place(folder: Path) -> None:
    data = (folder / "blue.png").read_bytes()
    (folder / "red.png").write_bytes(data)


def change_a_table(folder: Path) -> None:
    line = {"file_name": "red.png", "text": "a ruby"}
    (folder / "metadata.jsonl").write_text(json.dumps(line), encoding="utf-8")


def change_a_sidecar(folder: Path) -> None:
    (folder / "birds/wren.txt").write_text("a finch", encoding="utf-8")


def add_a_table(folder: Path) -> None:
    (folder / "birds/metadata.jsonl").write_text('{"file_name": "wren.png", "text": "a wren"}', "utf-8")


def remove_a_folder(folder: Path) -> None:
    for path in (folder / "birds").iterdir():
        path.unlink()
    (folder / "birds").rmdir()


CHANGES = [
    add,
    remove,
    rename,
    write_in_place,
    change_a_table,
    change_a_sidecar,
    add_a_table,
    remove_a_folder,
]


COUNTS = {  # new, changed, removed, and whether folders, tables or sidecars differ
    "add": (1, 0, 0, True),
    "remove": (0, 0, 1, True),
    "rename": (1, 0, 1, True),
    "write_in_place": (0, 1, 0, False),
    "change_a_table": (0, 0, 0, True),
    "change_a_sidecar": (0, 0, 0, True),
    "add_a_table": (0, 0, 0, True),
    "remove_a_folder": (0, 0, 1, True),
}


def found(folder: Folders, index_folder: Path) -> LibraryChanges:
    return find_changes(index_folder, folder)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("checked", [10_000, 2])
def test_a_walk_counts_every_change(
    folder: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    checked: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "CHECKED", checked)  # of which the stamps are stored
    index_folder = indexed(folder, tmp_path / "index")
    assert not found(folder, index_folder)
    change(folder)
    counts = found(folder, index_folder)
    assert (counts.new, counts.changed, counts.removed, bool(counts.texts)) == COUNTS[change.__name__]
    assert counts.mark == found(folder, index_folder).mark and not counts.emptied
    paint(folder, "another.png", (4, 5, 6))
    more = found(folder, index_folder)
    assert more.new == counts.new + 1 and more.mark != counts.mark
    paint(folder, "another.png", (4, 5, 7))  # as a file does that is being copied
    os.utime(folder / "another.png", ns=(1, 1))
    assert found(folder, index_folder).mark != more.mark
    indexed(folder, index_folder)
    assert not found(folder, index_folder)


@pytest.mark.parametrize("change", [change_a_table, change_a_sidecar, add_a_table])
def test_texts_whose_times_are_not_stored_are_noticed_by_later_ones(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "CHECKED", 0)
    index_folder = indexed(folder, tmp_path / "index")
    assert not found(folder, index_folder)
    change(folder)
    assert found(folder, index_folder).texts


def test_of_several_folders_an_empty_one_is_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    paint(other, "a.png", (9, 9, 200))
    paint(other, "b.png", (9, 99, 200))
    folders = [folder, other]
    library = Library.open(folders)
    from pleinair.tools.retrieval.build import build_index

    index = build_index(library, ColourEncoder(), tmp_path / "index")
    save_stamps(tmp_path / "index", index.manifest.catalogue, library.stamps)
    assert not found(folders, tmp_path / "index")
    (other / "a.png").rename(tmp_path / "a.png")
    counts = found(folders, tmp_path / "index")
    assert (counts.removed, counts.emptied) == (1, "")
    (other / "b.png").rename(tmp_path / "b.png")
    counts = found(folders, tmp_path / "index")
    assert (counts.removed, counts.emptied) == (2, str(other))
    with pytest.raises(NoLibrary, match=f"No images in {other}"):
        Library.open(folders)
    other.rmdir()
    with pytest.raises(NoLibrary, match="No folder"):
        found(folders, tmp_path / "index")


@pytest.mark.parametrize("part", ["folder", "files"])
def test_a_disk_that_is_unmounted_while_it_is_read_loses_no_entries(
    folder: Path, tmp_path: Path, part: str
) -> None:
    def unmount(done: int, total: int) -> None:
        if folder.is_dir() and not (tmp_path / "elsewhere").exists():
            shutil.move(folder, tmp_path / "elsewhere")
            if part == "files":
                folder.mkdir()

    with pytest.raises(NoLibrary, match="gone since"):
        Library.open(folder, on_progress=unmount)


def test_a_container_is_one_file(folder: Path, tmp_path: Path) -> None:
    data = [(folder / name).read_bytes() for name in ("red.png", "blue.png")]
    folder = tmp_path / "shards"
    folder.mkdir()
    os.utime(folder, ns=(1, 1))
    (folder / "shard.tar").write_bytes(tar({"a.png": data[0], "b.png": data[1]}))
    index_folder = indexed(folder, tmp_path / "index")
    assert not found(folder, index_folder)
    (folder / "shard.tar").write_bytes(tar({"a.png": data[0]}))
    counts = found(folder, index_folder)
    assert (counts.new, counts.changed, counts.removed) == (0, 1, 0)
    (folder / "shard.tar").unlink()
    counts = found(folder, index_folder)
    assert (counts.new, counts.changed, counts.removed) == (0, 0, 1)


def test_a_walk_without_an_index_and_a_stopped_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No index"):
        found(folder, tmp_path / "index")
    index_folder = indexed(folder, tmp_path / "index")
    for number in range(1000):
        (folder / f"{number}.txt").touch()

    def stop() -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        find_changes(index_folder, folder, on_pause=stop)


def test_an_unchanged_library_is_not_walked_through(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = Library.open(folder)
    index_folder = indexed(folder, tmp_path / "index")

    def fail(*_: object) -> None:
        raise AssertionError("the folders were walked through")

    options: dict[str, Any] = {"readers": (), "captions": None, "max_pixels": scanned.max_pixels}
    monkeypatch.setattr("pleinair.tools.retrieval.roots.local.list_folders", fail)
    library = current_library(index_folder, folder, **options)
    assert library and dict(library.items) == dict(scanned.items)
    assert library.digest == scanned.digest


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_is_noticed(folder: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    index_folder = indexed(folder, tmp_path / "index")
    assert current(folder, index_folder)
    change(folder)
    assert current(folder, index_folder) is None
    indexed(folder, index_folder)


def test_a_folder_that_has_just_changed_is_walked_through_again(folder: Path, tmp_path: Path) -> None:
    os.utime(folder, ns=(time.time_ns(),) * 2)  # another file may come within the same tick of its clock
    assert current(folder, indexed(folder, tmp_path / "index")) is None


def test_settings_that_read_otherwise_need_a_walk(folder: Path, tmp_path: Path) -> None:
    index_folder = indexed(folder, tmp_path / "index")
    assert current(folder, index_folder, max_pixels=10**6) is None
    assert current(folder, index_folder, readers=("sidecars",)) is None
    assert current([folder / "birds"], index_folder) is None
    captions = tmp_path / "captions.jsonl"
    assert current(folder, index_folder, captions=captions)
    captions.write_text("", encoding="utf-8")
    assert current(folder, index_folder, captions=captions) is None
    indexed(folder, index_folder, captions)
    assert current(folder, index_folder, captions=captions)


def test_a_library_that_is_gone_is_reported(folder: Path, tmp_path: Path) -> None:
    index_folder = indexed(folder, tmp_path / "index")
    folder.rename(tmp_path / "elsewhere")
    options: dict[str, Any] = {"readers": (), "captions": None, "max_pixels": 10**8}
    with pytest.raises(NoLibrary, match="No folder"):
        current_library(index_folder, folder, **options)


@pytest.mark.parametrize("damage", ["stamps", "catalogue", "manifest", "of another catalogue"])
def test_a_damaged_index_needs_a_walk(folder: Path, tmp_path: Path, damage: str) -> None:
    index_folder = indexed(folder, tmp_path / "index")
    if damage == "of another catalogue":
        (folder / "metadata.jsonl").unlink()
        build(folder, index_folder)
    else:
        names = {"stamps": "stamps.json", "manifest": "manifest.json", "catalogue": "catalogue-*"}
        (path,) = index_folder.glob(names[damage])
        path.write_bytes(path.read_bytes()[:-1])
    assert current(folder, index_folder) is None


def test_of_a_large_library_no_image_is_looked_at(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "CHECKED", 4)
    index_folder = indexed(folder, tmp_path / "index")
    looked: list[str] = []

    def look(path: str | Path) -> tuple[int, int] | None:
        looked.append(str(path))
        return stamp_of(path)

    monkeypatch.setattr(changes, "stamp_of", look)
    monkeypatch.setattr("pleinair.tools.retrieval.roots.local.stamp_of", look)
    options: dict[str, Any] = {"readers": (), "captions": None, "max_pixels": MAX_PIXELS}
    library = current_library(index_folder, folder, **options)
    assert looked and library and not any(path.endswith(".png") for path in looked)
    write_in_place(folder)
    assert current(folder, index_folder) is not None  # a walk notices it, or its use
    assert not library.is_current(library.items["red.png"])
