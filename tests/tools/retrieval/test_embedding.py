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
from support.colour_encoder import ColourEncoder, build, find, paint, write_squares
from support.colour_files import scene

from pleinair.tools.images.sandbox import read_many
from pleinair.tools.retrieval import embedding
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import READING, load_manifest, save_manifest
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.types import BadInput, Cancelled, ModelFault

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_squares(tmp_path / "library")


@pytest.fixture
def index_folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


def test_copies_are_embedded_once(folder: Path, index_folder: Path) -> None:
    shutil.copy(folder / "red.png", folder / "again.png")
    encoder = ColourEncoder()
    index = build(folder, index_folder, encoder)
    assert sum(encoder.batches) == 4
    assert len(index) == 5


def test_progress_reaches_the_total(folder: Path, index_folder: Path) -> None:
    progress: list[tuple[int, int]] = []
    build(folder, index_folder, on_progress=lambda done, total: progress.append((done, total)), batch_size=2)
    assert progress == [(2, 4), (4, 4), (4, 4)]


def test_only_changed_files_are_embedded_again(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    (folder / "green.png").unlink()
    (folder / "blue.png").rename(folder / "azure.png")
    os.utime(folder / "white.png", (1, 1))
    paint(folder, "red.png", (250, 10, 10))
    paint(folder, "new.png", (10, 10, 10))
    encoder = ColourEncoder()
    index = build(folder, index_folder, encoder)
    assert index.ids == ("azure.png", "new.png", "red.png", "white.png")
    assert sum(encoder.batches) == 2
    assert find(folder, index_folder, "blue")[0].id == "azure.png"


def test_an_unchanged_library_is_not_embedded_again(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    before = {path: path.stat().st_mtime_ns for path in index_folder.iterdir()}
    encoder = ColourEncoder()
    build(folder, index_folder, encoder)
    assert encoder.batches == []
    assert before == {path: path.stat().st_mtime_ns for path in index_folder.iterdir()}


def test_damaged_images_are_skipped_and_listed(folder: Path, index_folder: Path) -> None:
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    (folder / "cut.png").write_bytes((folder / "red.png").read_bytes()[:50])
    index = build(folder, index_folder)
    assert [skipped.id for skipped in index.skipped] == ["cut.png", "text.png"]
    assert "not an image" in index.skipped[1].reason
    assert not index.is_stale(Library.open(folder))
    shutil.copy(folder / "red.png", folder / "cut.png")
    assert [skipped.id for skipped in build(folder, index_folder).skipped] == ["text.png"]


def test_a_library_of_damaged_images_is_refused(folder: Path, index_folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.write_bytes(b"text")
    with pytest.raises(BadInput, match="None of 4 images"):
        build(folder, index_folder)


def test_a_second_builder_is_refused(folder: Path, index_folder: Path) -> None:
    index_folder.mkdir()
    with FileLock(index_folder / "lock"), pytest.raises(BadInput, match="Another process"):
        build(folder, index_folder)
    assert len(build(folder, index_folder)) == 4


def test_a_stopped_build_keeps_its_batches_and_the_earlier_index(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    for number in range(6):
        paint(folder, f"new{number}.png", (number * 40, 90, 200))

    def stop(done: int, total: int) -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        build(folder, index_folder, on_progress=stop, batch_size=2)
    assert len(Index.open(index_folder, ColourEncoder())) == 4
    encoder = ColourEncoder()
    assert len(build(folder, index_folder, encoder, batch_size=2)) == 10
    assert sum(encoder.batches) == 4
    assert not (index_folder / "shards").exists()


def test_damaged_shards_and_those_of_another_encoder_are_ignored(folder: Path, index_folder: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        build(folder, index_folder, ColourEncoder("colour-2"), on_progress=stop, batch_size=2)
    (index_folder / "shards" / "cut.npz").write_bytes(
        next((index_folder / "shards").iterdir()).read_bytes()[:100]
    )
    np.savez(
        index_folder / "shards" / "pickled.npz", vectors=np.array([{}], dtype=object), about=np.array([])
    )
    encoder = ColourEncoder()
    assert len(build(folder, index_folder, encoder)) == 4
    assert sum(encoder.batches) == 4


BUILDER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from support.colour_encoder import ColourEncoder, build
from support.colour_files import scene
from pathlib import Path

class Dying(ColourEncoder):
    def encode_images(self, images):
        if len(self.batches) == int(sys.argv[4]):
            os.kill(os.getpid(), 9)
        return super().encode_images(images)

build(Path(sys.argv[2]), Path(sys.argv[3]), Dying(), batch_size=2)
"""


def test_a_killed_build_loses_at_most_one_batch(folder: Path, index_folder: Path, tmp_path: Path) -> None:
    for number in range(6):
        paint(folder, f"new{number}.png", (number * 40, 90, 200))
    expected = build(folder, tmp_path / "undisturbed").manifest
    tests = str(Path(colours.__file__).parents[1])
    for batches in (1, 2):  # killed after one batch, then after two more
        command = [sys.executable, "-c", BUILDER, tests, str(folder), str(index_folder), str(batches)]
        assert subprocess.run(command, env=os.environ, check=False).returncode == -9
        with pytest.raises(BadInput, match="No index"):
            Index.open(index_folder, ColourEncoder())
    encoder = ColourEncoder()
    assert build(folder, index_folder, encoder, batch_size=2).manifest == expected
    assert sum(encoder.batches) == 10 - 3 * 2


def test_a_full_disk_leaves_the_earlier_index_and_no_partial_file(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    for number in range(200):
        paint(folder, f"new{number:03}.png", (number, 255 - number, 90))
    before = sorted(path.name for path in index_folder.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(DiskFull, match="Free some space"):
            build(folder, index_folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in index_folder.rglob("*") if path.name != "shards") == before
    assert len(Index.open(index_folder, ColourEncoder())) == 4
    assert len(build(folder, index_folder)) == 204


PALETTE = st.lists(
    st.tuples(st.integers(1, 255), st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=12
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PALETTE, st.integers(1, 13), st.randoms(use_true_random=False))
def test_batch_size_and_file_order_change_nothing(
    colours: list[tuple[int, int, int]], size: int, rng: Any
) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "library"
        folder.mkdir()
        names = [f"{number}.png" for number in range(len(colours))]
        rng.shuffle(names)
        for name, colour in sorted(zip(names, colours, strict=True), key=lambda _: rng.random()):
            paint(folder, name, colour)
        single = build(folder, Path(root) / "single", batch_size=1)
        assert single.manifest == build(folder, Path(root) / "batches", batch_size=size).manifest
        assert list(single.ids) == sorted(names)


class FaultyEncoder(ColourEncoder):
    """Encoder whose rows are not unit vectors, as `fault` says."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        rows = super().encode_images(images)
        faults = {"nan": rows * np.nan, "long": rows * 3, "few": rows[1:], "flat": rows.ravel()}
        broken: Vectors = faults[self.fault]
        return broken


@pytest.mark.parametrize("fault", ["nan", "long", "few", "flat"])
def test_an_encoder_without_unit_vectors_is_reported(folder: Path, index_folder: Path, fault: str) -> None:
    with pytest.raises(ModelFault, match="colour-1"):
        build(folder, index_folder, FaultyEncoder(fault))


def test_an_encoder_that_changes_its_dimension_is_reported(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    paint(folder, "new.png", (1, 2, 3))
    encoder = ColourEncoder()
    encoder.encode_images = lambda images: np.eye(1, 7, dtype=np.float32)  # type: ignore[method-assign]
    with pytest.raises(ModelFault, match=r"\(4,\) earlier and \(7,\) now"):
        build(folder, index_folder, encoder)


def test_large_images_fill_a_batch_early(
    folder: Path, index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "BATCH_PIXELS", 2 * 64)
    encoder = ColourEncoder()
    build(folder, index_folder, encoder)
    assert encoder.batches == [2, 2]


def test_blank_and_odd_files_are_told(folder: Path, index_folder: Path) -> None:
    scene(80, 60).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-2])
    scene(80, 60).save(folder / "profile.png", icc_profile=b"none")
    Image.new("RGB", (80, 60), "white").save(folder / "blank.png")
    Image.new("RGBA", (80, 60), (200, 0, 0, 0)).save(folder / "logo.png")
    index = build(folder, index_folder)
    assert {file.id for file in index.skipped} == {"blank.png", "logo.png"}
    assert {file.id for file in index.noted} == {"cut.jpg", "profile.png"}
    assert build(folder, index_folder).noted == index.noted


def test_a_file_that_was_too_large_is_read_when_more_is_allowed(folder: Path, index_folder: Path) -> None:
    scene(1_250, 1_000).save(folder / "large.png")
    for max_pixels, count in ((10**6, 4), (2 * 10**6, 5)):
        library = Library.open(folder, max_pixels=max_pixels)
        index = build_index(library, ColourEncoder(), index_folder)
        assert len(index) == count and not index.is_stale(library)


def test_an_index_of_other_pixels_is_rebuilt(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    save_manifest(index_folder, load_manifest(index_folder).model_copy(update={"reading": READING - 1}))
    assert Index.open(index_folder, ColourEncoder()).is_stale(Library.open(folder))
    encoder = ColourEncoder()
    build(folder, index_folder, encoder)
    assert sum(encoder.batches) == 4


def test_the_size_of_each_image_is_recorded(folder: Path, index_folder: Path) -> None:
    scene(1_600, 1_200).save(folder / "large.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    scene(80, 60).save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (70, 50), "white").save(folder / "blank.png")
    (folder / "text.png").write_text("no picture", encoding="utf-8")

    class Sized(ColourEncoder):
        image_side = 100

    build(folder, index_folder, Sized())
    index = build(folder, index_folder, Sized())  # as it was stored
    sizes = {file.id: (file.width, file.height) for file in (*index.catalogue.files(), *index.skipped)}
    assert sizes["large.jpg"] == (1_600, 1_200)
    assert sizes["turned.jpg"] == (60, 80)
    assert sizes["blank.png"] == (70, 50)
    assert sizes["text.png"] == (0, 0)
    assert sizes["red.png"] == (8, 8)


def test_unchanged_files_among_new_ones_and_any_grouping_change_nothing(
    folder: Path, index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(folder, index_folder)
    for number in range(9):
        paint(folder, f"{'bgr'[number % 3]}{number}.png", (number * 20, 90, 200))
    shutil.copy(folder / "red.png", folder / "also.png")
    (folder / "empty.png").touch()
    ways = ((10**6, 32), (100, 32), (10**6, 2))
    for number, (size, together) in enumerate(ways):
        monkeypatch.setattr(embedding, "_TOGETHER_BYTES", size)
        monkeypatch.setattr(embedding, "TOGETHER", together)
        copy = shutil.copytree(index_folder, index_folder.parent / str(number))
        encoder = ColourEncoder()
        index = build(folder, copy, encoder, batch_size=4)
        assert [len(index), sum(encoder.batches), [file.id for file in index.skipped]] == [
            14,
            9,
            ["empty.png"],
        ]
        new = build(folder, index_folder.parent / "new")
        assert index.ids == new.ids
        assert all(np.array_equal(index.vector(id), new.vector(id)) for id in index.ids)


def test_an_encoder_with_a_size_sees_reduced_images(folder: Path, index_folder: Path) -> None:
    sizes: list[tuple[int, int]] = []

    class Sized(ColourEncoder):
        image_side = 100

        def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
            sizes.extend(image.size for image in images)
            return super().encode_images(images)

    scene(1_600, 1_200).save(folder / "large.jpg")
    build(folder, index_folder, Sized())
    assert sorted(sizes) == [(8, 8)] * 4 + [(200, 150)]


class GpuDecoding(ColourEncoder):
    """Encoder whose JPEGs torchvision decodes, here on the CPU."""

    jpeg_decoder = "cpu"


def test_plain_jpegs_are_decoded_beside_the_sandbox(
    folder: Path, index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene().resize((64, 48)).save(folder / "photo.jpg", quality=95)
    (folder / "photo, cut.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:200])
    in_sandbox = build(folder, index_folder)
    files: list[bytes] = []

    def record(group: Sequence[bytes], *arguments: Any) -> Any:
        files.extend(group)
        return read_many(group, *arguments)

    monkeypatch.setattr(embedding, "read_many", record)
    index = build(folder, index_folder.with_name("other"), GpuDecoding())
    assert index.ids == in_sandbox.ids and index.skipped == in_sandbox.skipped
    np.testing.assert_allclose(index.vector("photo.jpg"), in_sandbox.vector("photo.jpg"), atol=1e-3)
    assert (folder / "red.png").read_bytes() in files
    assert (folder / "photo.jpg").read_bytes() not in files
