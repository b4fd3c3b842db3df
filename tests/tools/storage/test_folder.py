from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from pleinair.tools.storage.away import Away
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.storage.folder import Folder, StorageFault
from pleinair.tools.types import BadInput, PleinairError


@pytest.fixture(params=["path", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    places: dict[str, str | Path] = {
        "path": tmp_path / "a",
        "file": f"file://{tmp_path}/a",
        "memory": f"memory://{uuid4().hex}/a",
    }
    yield Folder(places[request.param])
    MemoryFileSystem.store.clear()


class Faulty(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Storage of which every request fails with `fault`, as drivers do."""

    protocol = "faulty"
    store: dict[str, Any] = {}
    fault: Exception = OSError()

    def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        raise self.fault

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        raise self.fault

    find = info = rm_file = cat_file


register_implementation("faulty", Faulty, clobber=True)


def test_a_file_is_written_read_listed_and_removed(folder: Folder) -> None:
    assert (folder.read("a.txt"), folder.sizes(), folder.stamp("a.txt")) == (None, {}, None)
    folder.write("a.txt", b"one")
    folder.write("calls/0001.json", b"four", durable=False)
    assert folder.read("a.txt") == b"one"
    assert folder.sizes() == {"a.txt": 3, "calls/0001.json": 4}
    assert folder.below("calls").sizes() == {"0001.json": 4}
    folder.remove_file("a.txt")
    folder.remove_file("a.txt")
    assert folder.sizes() == {"calls/0001.json": 4}
    folder.remove()
    folder.remove()
    assert folder.sizes() == {}


def test_a_stamp_changes_with_the_content(folder: Folder) -> None:
    folder.write("a", b"one")
    before = folder.stamp("a")
    assert before == folder.stamp("a")
    assert before
    assert before[0] == 3
    folder.write("a", b"two")
    assert folder.stamp("a") != before


def test_a_folder_is_shown_as_its_path_or_url(tmp_path: Path) -> None:
    assert Folder(tmp_path).path("a.png") == str(tmp_path / "a.png")
    assert Folder("memory://bucket/runs").path("a.png") == "memory:///bucket/runs/a.png"


def test_a_folder_whose_name_another_begins_with_is_left_alone(folder: Folder) -> None:
    folder.below("run").write("a", b"1")
    folder.below("run2").write("a", b"1")
    folder.below("run").remove()
    assert folder.sizes() == {"run2/a": 1}


@pytest.mark.parametrize(
    ("fault", "remedy", "is_away"),
    [
        (PermissionError(errno.EACCES, "the credentials were refused"), "credentials", False),
        (OSError(errno.EIO, "connection refused"), "reached", True),
        (ValueError("an error of the driver"), "reached", True),
    ],
)
def test_each_fault_of_a_storage_is_an_error_with_a_remedy(
    fault: Exception, remedy: str, is_away: bool
) -> None:
    Faulty.fault = fault
    folder = Folder("faulty://bucket/runs")
    for ask in (
        lambda: folder.read("a"),
        lambda: folder.write("a", b"1"),
        folder.sizes,
        lambda: folder.stamp("a"),
        lambda: folder.remove_file("a"),
    ):
        with pytest.raises(StorageFault, match="bucket/runs") as error:
            ask()
        assert remedy in error.value.remedy
        assert isinstance(error.value, Away) == is_away


def test_a_bucket_that_does_not_exist_is_named() -> None:
    Faulty.fault = FileNotFoundError("bucket")
    with pytest.raises(StorageFault, match="no such bucket"):
        Folder("faulty://bucket/runs").write("a", b"1")


def test_a_full_storage_is_a_full_disk() -> None:
    Faulty.fault = OSError(errno.ENOSPC, "no space")
    with pytest.raises(DiskFull):
        Folder("faulty://bucket/runs").write("a", b"1")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(PleinairError, match=f"Cannot read {tmp_path}/a"):
        Folder(tmp_path).read("a")


def test_a_storage_without_a_driver_is_refused() -> None:
    with pytest.raises(BadInput, match="carrierpigeon"):
        Folder("carrierpigeon://coop")
