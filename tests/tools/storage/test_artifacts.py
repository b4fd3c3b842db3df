from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact
from pleinair.tools.storage.files import PART_AGE, DiskFull, sweep_parts, write_whole
from pleinair.tools.types import BadInput, Picture, PleinairError


def noise(seed: int = 0, side: int = 64) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    yield ArtifactStore(tmp_path if request.param == "folder" else f"memory://{uuid4().hex}")
    MemoryFileSystem.store.clear()


def files(folder: Path, kind: str = "") -> list[Path]:
    return sorted(path for path in folder.rglob(f"*{kind}") if path.is_file())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_image_is_stored_losslessly(store: ArtifactStore) -> None:
    image = noise()
    picture = store.put(image)
    assert (picture.width, picture.height, picture.mime) == (64, 64, "image/png")
    assert sha256(store.read(picture)).hexdigest() == picture.sha256
    assert store.open(picture).tobytes() == image.tobytes()


def test_the_name_depends_on_the_pixels_only(store: ArtifactStore) -> None:
    image = noise()
    tagged = image.copy()
    tagged.info = {"icc_profile": b"hello", "dpi": (72, 72)}
    assert store.put(image) == store.put(tagged)
    assert store.put(noise(1)) != store.put(image)
    assert b"hello" not in store.read(store.put(tagged))


def test_images_are_stored_by_content(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    picture = store.put(noise())
    assert files(tmp_path) == [tmp_path / "sha256" / picture.sha256[:2] / f"{picture.sha256}.png"]
    assert store.path(picture) == str(files(tmp_path)[0])


def test_a_remote_path_is_a_url() -> None:
    store = ArtifactStore("memory://pictures")
    assert store.path(store.put(noise())).startswith("memory://")


def test_an_intact_copy_is_not_written_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    before = os.stat(store.path(store.put(noise())))
    assert os.stat(store.path(store.put(noise()))).st_ino == before.st_ino


def test_alpha_is_laid_on_white(store: ArtifactStore) -> None:
    picture = store.put(Image.new("RGBA", (8, 8), (10, 20, 30, 0)))
    assert store.open(picture).getpixel((0, 0)) == (255, 255, 255)


def test_an_image_too_large_to_read_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(BadPicture, match="8192"):
        store.put(Image.new("RGB", (9000, 1)))


def test_a_missing_image_is_named(store: ArtifactStore) -> None:
    absent = Picture(sha256="0" * 64, width=1, height=1)
    with pytest.raises(BadArtifact, match="0" * 64):
        store.read(absent)


def test_a_changed_image_is_named_and_repaired_by_put(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    picture = store.put(noise())
    Path(store.path(picture)).write_bytes(b"not what it was")
    with pytest.raises(BadArtifact, match=picture.sha256):
        store.open(picture)
    assert store.put(noise()) == picture
    assert store.open(picture).tobytes() == noise().tobytes()


def test_unknown_storage_is_named() -> None:
    with pytest.raises(BadInput, match="carrierpigeon"):
        ArtifactStore("carrierpigeon://coop")


def test_a_step_runs_once(store: ArtifactStore) -> None:
    calls: list[int] = []

    def make() -> Image.Image:
        calls.append(1)
        return noise(len(calls))

    first = store.once("run/1/draft", make)
    assert store.once("run/1/draft", make) == first
    assert store.once("run/1/repair", make) != first
    assert len(calls) == 2


def test_a_step_survives_the_process(tmp_path: Path) -> None:
    first = ArtifactStore(tmp_path).once("key", noise)
    assert ArtifactStore(tmp_path).once("key", lambda: pytest.fail("made again")) == first


@pytest.mark.parametrize("harm", ["remove", "truncate", "empty"])
def test_a_step_whose_image_is_lost_runs_again(tmp_path: Path, harm: str) -> None:
    store = ArtifactStore(tmp_path)
    picture = store.once("key", noise)
    path = Path(store.path(picture))
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if harm == "truncate" else b"")
    assert store.once("key", noise) == picture
    assert store.open(picture).tobytes() == noise().tobytes()


@pytest.mark.parametrize("note", [b"", b"{", b'{"key": "key", "picture": {"sha256": "../../etc/passwd"}}'])
def test_a_damaged_note_is_ignored(tmp_path: Path, note: bytes) -> None:
    store = ArtifactStore(tmp_path)
    picture = store.once("key", noise)
    files(tmp_path / "steps")[0].write_bytes(note)
    assert store.once("key", noise) == picture


def test_a_failed_make_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Image.Image:
        raise RuntimeError("the model fell over")

    with pytest.raises(RuntimeError):
        ArtifactStore(tmp_path).once("key", fail)
    assert files(tmp_path) == []


def test_an_empty_key_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(BadInput, match="key"):
        store.once("", noise)


@settings(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_keys_are_distinct(key: str, other: str) -> None:
    MemoryFileSystem.store.clear()
    store = ArtifactStore("memory://keys")
    first = store.once(key.encode("utf-8", "replace").decode(), lambda: noise(1, 4))
    second = store.once(other.encode("utf-8", "replace").decode(), lambda: noise(2, 4))
    same = key.encode("utf-8", "replace") == other.encode("utf-8", "replace")
    assert (first == second) == same


def test_a_file_over_the_limit_leaves_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    stored = store.put(noise(1, 8))
    with largest_file(4096), pytest.raises(DiskFull, match="Free some space"):
        store.once("key", noise)
    assert [path.name for path in files(tmp_path)] == [f"{stored.sha256}.png"]
    assert store.open(store.once("key", noise)).tobytes() == noise().tobytes()


def test_the_reserve_is_kept_free(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, reserve=shutil.disk_usage(tmp_path).free * 2)
    with pytest.raises(DiskFull, match="No room"):
        store.put(noise())
    assert files(tmp_path) == []


class SmallDisk(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """File system that silently truncates files to `room` bytes, as some network disks do."""

    protocol = "smalldisk"
    room = 1000

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        super().pipe_file(path, value[: self.room])


def test_a_short_write_to_a_remote_store_is_removed() -> None:
    store = ArtifactStore("memory://small")
    store._folder._files = small = SmallDisk()
    with pytest.raises(DiskFull, match="only a part"):
        store.put(noise())
    assert small.find("/small") == []


def test_other_errors_are_explained(tmp_path: Path) -> None:
    (tmp_path / "sha256").write_text("in the way", encoding="utf-8")
    with pytest.raises(PleinairError, match="Cannot"):
        ArtifactStore(tmp_path).put(noise())


def test_parts_of_killed_writers_are_removed(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    stale, recent = parts / ".a.part", parts / ".b.part"
    stale.touch()
    recent.touch()
    os.utime(stale, (time.time() - 2 * PART_AGE,) * 2)
    ArtifactStore(tmp_path)
    assert files(parts) == [recent]
    sweep_parts(parts, older_than=0)
    assert files(parts) == []


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


WRITER = """
import sys
import numpy as np
from PIL import Image
from pleinair.tools.storage.artifacts import ArtifactStore

def make(step):
    return Image.fromarray(np.random.default_rng(step).integers(0, 256, (48, 48, 3), np.uint8))

store = ArtifactStore(sys.argv[1])
print("ready", flush=True)
for step in range(25):
    store.once(f"step {step}", lambda: make(step))
"""


def test_killed_writers_leave_no_duplicate_and_no_part(tmp_path: Path) -> None:
    rng = random.Random(5)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    for _ in range(5):
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        for path in files(tmp_path / "sha256", ".png"):
            assert sha256(path.read_bytes()).hexdigest() == path.stem
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    assert len(files(tmp_path / "sha256", ".png")) == len(files(tmp_path / "steps")) == 25
