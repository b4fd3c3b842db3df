from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import colour_encoder as colours
from support.colour_encoder import ColourEncoder, build, find, paint, write_shelf

from pleinair.tools.retrieval import embedding
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.types import BadInput, Cancelled, ModelFault

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return write_shelf(tmp_path / "library")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "index"


def test_an_equal_file_is_embedded_once(shelf: Path, place: Path) -> None:
    shutil.copy(shelf / "red.png", shelf / "again.png")
    encoder = ColourEncoder()
    index = build(shelf, place, encoder)
    assert sum(encoder.batches) == 4
    assert len(index) == 5


def test_progress_reaches_the_total(shelf: Path, place: Path) -> None:
    seen: list[tuple[int, int]] = []
    build(shelf, place, on_progress=lambda done, total: seen.append((done, total)), batch_size=2)
    assert seen == [(2, 4), (4, 4), (4, 4)]


def test_only_what_changed_is_embedded_again(shelf: Path, place: Path) -> None:
    build(shelf, place)
    (shelf / "green.png").unlink()
    (shelf / "blue.png").rename(shelf / "azure.png")
    os.utime(shelf / "white.png", (1, 1))
    paint(shelf, "red.png", (250, 10, 10))
    paint(shelf, "new.png", (10, 10, 10))
    encoder = ColourEncoder()
    index = build(shelf, place, encoder)
    assert index.ids == ("azure.png", "new.png", "red.png", "white.png")
    assert sum(encoder.batches) == 2
    assert find(shelf, place, "blue")[0].id == "azure.png"


def test_an_unchanged_library_costs_nothing(shelf: Path, place: Path) -> None:
    build(shelf, place)
    before = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    encoder = ColourEncoder()
    build(shelf, place, encoder)
    assert encoder.batches == []
    assert before == {path: path.stat().st_mtime_ns for path in place.iterdir()}


def test_damaged_pictures_are_skipped_listed_and_not_tried_again(shelf: Path, place: Path) -> None:
    (shelf / "text.png").write_text("no picture", encoding="utf-8")
    (shelf / "cut.png").write_bytes((shelf / "red.png").read_bytes()[:50])
    index = build(shelf, place)
    assert [skipped.id for skipped in index.skipped] == ["cut.png", "text.png"]
    assert "not an image" in index.skipped[1].reason
    assert not index.is_stale(Library.open(shelf))
    shutil.copy(shelf / "red.png", shelf / "cut.png")
    assert [skipped.id for skipped in build(shelf, place).skipped] == ["text.png"]


def test_nothing_but_damaged_pictures_is_bad_input(shelf: Path, place: Path) -> None:
    for path in shelf.glob("*.png"):
        path.write_bytes(b"text")
    with pytest.raises(BadInput, match="None of 4 images"):
        build(shelf, place)


def test_a_second_builder_is_refused(shelf: Path, place: Path) -> None:
    place.mkdir()
    with FileLock(place / "lock"), pytest.raises(BadInput, match="Another process"):
        build(shelf, place)
    assert len(build(shelf, place)) == 4


def test_a_stopped_build_keeps_its_batches_and_the_old_index(shelf: Path, place: Path) -> None:
    build(shelf, place)
    for number in range(6):
        paint(shelf, f"new{number}.png", (number * 40, 90, 200))

    def stop(done: int, total: int) -> None:
        raise Cancelled("the user asked")

    with pytest.raises(Cancelled):
        build(shelf, place, on_progress=stop, batch_size=2)
    assert len(Index.open(place, ColourEncoder())) == 4
    encoder = ColourEncoder()
    assert len(build(shelf, place, encoder, batch_size=2)) == 10
    assert sum(encoder.batches) == 4
    assert not (place / "shards").exists()


def test_shards_of_another_encoder_or_damaged_ones_are_ignored(shelf: Path, place: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled("the user asked")

    with pytest.raises(Cancelled):
        build(shelf, place, ColourEncoder("colour-2"), on_progress=stop, batch_size=2)
    (place / "shards" / "cut.npz").write_bytes(next((place / "shards").iterdir()).read_bytes()[:100])
    np.savez(place / "shards" / "pickled.npz", vectors=np.array([{}], dtype=object), about=np.array([]))
    encoder = ColourEncoder()
    assert len(build(shelf, place, encoder)) == 4
    assert sum(encoder.batches) == 4


BUILDER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from support.colour_encoder import ColourEncoder, build
from pathlib import Path

class Dying(ColourEncoder):
    def encode_images(self, images):
        if len(self.batches) == int(sys.argv[4]):
            os.kill(os.getpid(), 9)
        return super().encode_images(images)

build(Path(sys.argv[2]), Path(sys.argv[3]), Dying(), batch_size=2)
"""


def test_a_killed_build_loses_at_most_one_batch(shelf: Path, place: Path, tmp_path: Path) -> None:
    for number in range(6):
        paint(shelf, f"new{number}.png", (number * 40, 90, 200))
    whole = build(shelf, tmp_path / "undisturbed").manifest
    here = str(Path(colours.__file__).parents[1])
    for batches in (1, 2):  # killed after one batch, then after two more
        command = [sys.executable, "-c", BUILDER, here, str(shelf), str(place), str(batches)]
        assert subprocess.run(command, env=os.environ, check=False).returncode == -9
        with pytest.raises(BadInput, match="No index"):
            Index.open(place, ColourEncoder())
    encoder = ColourEncoder()
    assert build(shelf, place, encoder, batch_size=2).manifest == whole
    assert sum(encoder.batches) == 10 - 3 * 2


def test_a_full_disk_leaves_the_old_index_and_no_piece(shelf: Path, place: Path) -> None:
    build(shelf, place)
    for number in range(200):
        paint(shelf, f"new{number:03}.png", (number, 255 - number, 90))
    before = sorted(path.name for path in place.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(DiskFull, match="Free some space"):
            build(shelf, place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in place.rglob("*") if path.name != "shards") == before
    assert len(Index.open(place, ColourEncoder())) == 4
    assert len(build(shelf, place)) == 204


PALETTE = st.lists(
    st.tuples(st.integers(1, 255), st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=12
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PALETTE, st.integers(1, 13), st.randoms(use_true_random=False))
def test_batch_size_and_file_order_change_nothing(
    colours: list[tuple[int, int, int]], size: int, rng: Any
) -> None:
    with tempfile.TemporaryDirectory() as root:
        shelf = Path(root) / "library"
        shelf.mkdir()
        names = [f"{number}.png" for number in range(len(colours))]
        rng.shuffle(names)
        for name, colour in sorted(zip(names, colours, strict=True), key=lambda _: rng.random()):
            paint(shelf, name, colour)
        one = build(shelf, Path(root) / "one", batch_size=1).manifest
        other = build(shelf, Path(root) / "other", batch_size=size).manifest
        assert one == other
        assert [file.id for file in one.files] == sorted(names)


class Faulty(ColourEncoder):
    """Break the promise of unit rows in the way that `fault` says."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        rows = super().encode_images(images)
        faults = {"nan": rows * np.nan, "long": rows * 3, "few": rows[1:], "flat": rows.ravel()}
        broken: Vectors = faults[self.fault]
        return broken


@pytest.mark.parametrize("fault", ["nan", "long", "few", "flat"])
def test_an_encoder_that_breaks_its_promise_is_named(shelf: Path, place: Path, fault: str) -> None:
    with pytest.raises(ModelFault, match="colour-1"):
        build(shelf, place, Faulty(fault))


def test_an_encoder_that_changes_under_its_id_is_named(shelf: Path, place: Path) -> None:
    build(shelf, place)
    paint(shelf, "new.png", (1, 2, 3))
    encoder = ColourEncoder()
    encoder.encode_images = lambda images: np.eye(1, 7, dtype=np.float32)  # type: ignore[method-assign]
    with pytest.raises(ModelFault, match=r"\(4,\) earlier and \(7,\) now"):
        build(shelf, place, encoder)


def test_large_pictures_close_a_batch_early(
    shelf: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "BATCH_PIXELS", 2 * 64)
    encoder = ColourEncoder()
    build(shelf, place, encoder)
    assert encoder.batches == [2, 2]
