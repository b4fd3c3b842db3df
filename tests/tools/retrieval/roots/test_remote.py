from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.container_files import parquet, png, table, tar

from pleinair.tools.deadline import OutOfTime, deadline
from pleinair.tools.retrieval.roots import remote
from pleinair.tools.retrieval.roots.opening import contents_of, has_images, root_of
from pleinair.tools.retrieval.roots.read_cache import ReadCache
from pleinair.tools.retrieval.roots.remote import RemoteRoot
from pleinair.tools.types import NoLibrary

IMAGES = [png(colour) for colour in ("red", "lime", "blue", "gold")]


class Slow(MemoryFileSystem):  # type: ignore[misc]
    """Memory of its own, whose requests are counted and may fail or wait."""

    protocol = "slow"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    requests: list[str] = []
    faults: list[Exception] = []
    seconds = 0.0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.requests.append(path)
        time.sleep(self.seconds)
        if self.faults:
            raise self.faults.pop()
        data: bytes = super().cat_file(path, start, end, **options)
        return data

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(
            path.replace("slow://", "memory://") if isinstance(path, str) else path
        )


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Slow:
    fsspec.register_implementation("slow", Slow, clobber=True)
    for name, value in (
        ("store", {}),
        ("requests", []),
        ("faults", []),
        ("seconds", 0.0),
        ("pseudo_dirs", [""]),
    ):
        monkeypatch.setattr(Slow, name, value)
    monkeypatch.setattr(remote, "_WAITS", (0.01, 0.01))
    storage = Slow()
    storage.pipe(
        {"/bucket/a.png": IMAGES[0], "/bucket/birds/b.png": IMAGES[1], "/bucket/birds/b.txt": b"a finch"}
    )
    storage.pipe({"/bucket/.hidden/c.png": b"", "/bucket/birds/0.tar": tar({"x.png": IMAGES[2]})})
    return storage


def test_a_url_is_listed_and_read(files: Slow, tmp_path: Path) -> None:
    parquet(tmp_path / "x", table(IMAGES[3:], text=["a wren"]))
    files.pipe("/bucket/rows.parquet", (tmp_path / "x").read_bytes())
    listed = contents_of({"": root_of("slow://bucket", tmp_path)}, tmp_path)[""]
    images = ["a.png", "birds/0.tar/x.png", "birds/b.png", "rows.parquet/000001.png"]
    assert sorted(listed.listing.images) == images
    assert (listed.listing.others, listed.listing.left_out) == (["birds/b.txt"], [".hidden/c.png"])
    assert [listed.read(path, 10**6) for path in images] == [IMAGES[0], IMAGES[2], IMAGES[1], IMAGES[3]]
    assert [stored.record for _, _, stored in listed.rows()] == [{"text": "a wren"}]
    stamp = listed.stamp("a.png")
    assert stamp and stamp[0] == len(IMAGES[0]) and abs(stamp[1] / 1e9 - time.time()) < 10**5
    assert has_images("slow://bucket/birds")
    assert not has_images("slow://bucket/nothing")


def test_a_url_of_a_container_is_a_library(files: Slow) -> None:
    listed = contents_of({"": root_of("slow://bucket/birds/0.tar")})[""]
    assert listed.listing.images == ["x.png"]
    assert listed.read("x.png", 10**6) == IMAGES[2]


def test_what_was_read_is_not_fetched_again_until_it_changes(files: Slow, tmp_path: Path) -> None:
    def read() -> bytes:
        return RemoteRoot("slow://bucket", tmp_path).read("a.png", 10**6)

    assert (read(), read()) == (IMAGES[0], IMAGES[0])
    assert files.requests == ["/bucket/a.png"]
    files.pipe("/bucket/a.png", IMAGES[1])
    assert read() == IMAGES[1]


def test_a_fault_that_passes_is_tried_again(files: Slow) -> None:
    files.faults.extend([OSError("reset"), TimeoutError()])
    assert RemoteRoot("slow://bucket").read("a.png", 10**6) == IMAGES[0]
    files.faults.extend([OSError("https://bucket/?signature=secret")] * 3)
    with pytest.raises(OSError, match="OSError of slow, at a.png") as error:
        RemoteRoot("slow://bucket").read("a.png", 10**6)
    assert "secret" not in str(error.value)
    files.faults.append(PermissionError("no"))
    files.requests.clear()
    with pytest.raises(PermissionError):
        RemoteRoot("slow://bucket").read("a.png", 10**6)
    assert len(files.requests) == 1


def test_the_deadline_ends_a_request(files: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    root = RemoteRoot("slow://bucket")
    root.stamp("a.png")
    monkeypatch.setattr(Slow, "seconds", 4.0)
    with deadline(0.05), pytest.raises(OutOfTime):
        root.read("a.png", 10**6)


def test_an_empty_url_is_no_library(files: Slow) -> None:
    with pytest.raises(NoLibrary, match="slow://bucket/nothing has no files, or does not list them"):
        contents_of({"": root_of("slow://bucket/nothing")})


def test_parts_of_a_container_are_fetched_in_blocks(files: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1000)
    data = bytes(range(256)) * 40
    files.pipe("/bucket/x.tar", data)
    file = RemoteRoot("slow://bucket").open("x.tar")
    for offset, length in ((0, 10), (990, 20), (2500, 3000), (10_230, 100), (10_240, 5), (0, 10_240)):
        assert file.read(offset, length) == data[offset : offset + length]
    assert len(files.requests) <= 11 + 3


def test_a_server_without_parts_of_files_is_noticed(files: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1000)
    files.pipe("/bucket/x.tar", bytes(3000))
    monkeypatch.setattr(Slow, "cat_file", lambda files, path, **_: MemoryFileSystem.cat_file(files, path))
    file = RemoteRoot("slow://bucket").open("x.tar")
    assert file.read(0, 10) == bytes(10)
    with pytest.raises(OSError, match="does not send parts"):
        file.read(1500, 10)


@pytest.mark.parametrize(
    ("about", "seconds"),
    [
        ({"LastModified": datetime(2026, 11, 29, 13, tzinfo=UTC), "ETag": "x"}, 1795957200),
        ({"updated": "2026-11-29T13:00:00Z"}, 1795957200),
        ({"Last-Modified": "Sun, 29 Nov 2026 13:00:00 GMT"}, 1795957200),
        ({"mtime": 1795957200.0}, 1795957200),
    ],
)
def test_times_of_storages_are_read(about: dict[str, Any], seconds: int) -> None:
    assert remote._stamp({"size": 5, **about}) == (5, seconds * 10**9)


def test_a_tag_stands_for_a_time() -> None:
    first, second = (remote._stamp({"size": 5, "ETag": tag}) for tag in ("a", "b"))
    assert first != second and first == remote._stamp({"size": 5, "ETag": "a"})


def test_the_cache_has_a_size(tmp_path: Path) -> None:
    cache = ReadCache(tmp_path, 1000)
    for n in range(30):
        assert cache.get(str(n), lambda: bytes(100)) == bytes(100)
        assert cache.get("0", lambda: bytes(100)) == bytes(100)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    fetched = list[str]()
    cache.get("0", lambda: fetched.append("0") or bytes(100))  # type: ignore[func-returns-value]
    assert not fetched  # it was used last
