from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.colour_encoder import COLOURS, ColourEncoder, build, find, paint, square, write_squares

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.retrieval import faiss_index as flat
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.filters import Filtered, similar
from pleinair.tools.retrieval.fusion import distinct
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import save_manifest, verify_files
from pleinair.tools.types import BadInput, ModelFault, PleinairError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_squares(tmp_path / "library")


@pytest.fixture
def index_folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


PALETTE = st.lists(
    st.tuples(st.integers(1, 255), st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=12
)


def test_the_nearest_image_comes_first_with_its_metadata(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    best, *rest = find(folder, index_folder, "red")
    metadata = {
        "id": "red.png",
        "caption": "a red square",
        "license": "CC0-1.0",
        "source": "s",
        "author": "x",
    }
    assert best.model_dump(exclude={"score", "boxes"}) == {**metadata, "score_kind": "cosine"}
    assert best.score == pytest.approx(1, abs=1e-6)
    assert [hit.id for hit in rest] == ["white.png", "blue.png"]  # blue and green tie; the id decides


def test_scores_are_the_cosines(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    encoder = ColourEncoder()
    for hit in find(folder, index_folder, "blue", k=9):
        image = encoder.encode_images([Image.open(folder / hit.id)])
        assert hit.score == pytest.approx((image @ encoder.encode_text(["blue"]).T).item(), abs=1e-6)


def test_a_k_over_the_size_of_the_library_returns_all(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    assert len(find(folder, index_folder, "red", k=10**6)) == 4


def test_a_library_of_one_picture_works(folder: Path, index_folder: Path) -> None:
    for name in ("green", "blue", "white"):
        (folder / f"{name}.png").unlink()
    assert len(build(folder, index_folder)) == 1
    assert [hit.id for hit in find(folder, index_folder, "blue")] == ["red.png"]


@pytest.mark.parametrize(("query", "k"), [("red", 0), ("red", -1), ("", 3), (" \n", 3)])
def test_invalid_queries_are_refused(folder: Path, index_folder: Path, query: str, k: int) -> None:
    build(folder, index_folder)
    with pytest.raises(BadInput):
        find(folder, index_folder, query, k)


def test_copies_are_hits_unless_filtered(folder: Path, index_folder: Path) -> None:
    for number in range(20):
        paint(folder, f"copy{number:02}.png", (255, number // 10, 0))
    retriever = IndexRetriever(Library.open(folder), build(folder, index_folder), ColourEncoder())
    filtered = Filtered(retriever, distinct(similar(retriever.vector, 0.995)))
    assert [hit.id for hit in filtered.search("red", k=2)] == ["copy00.png", "white.png"]
    assert len(filtered.search("red", k=5)) == 4
    assert len(retriever.search("red", k=5)) == 5


def change(folder: Path, kind: str) -> None:
    match kind:
        case "add":
            paint(folder, "new.png", (1, 2, 3))
        case "remove":
            (folder / "red.png").unlink()
        case "rename":
            (folder / "red.png").rename(folder / "scarlet.png")
        case "overwrite":
            status = (folder / "red.png").stat()
            paint(folder, "red.png", (9, 9, 9))
            os.utime(folder / "red.png", ns=(status.st_atime_ns, status.st_mtime_ns + 10**6))


@pytest.mark.parametrize("kind", ["add", "remove", "rename", "overwrite"])
def test_a_changed_library_is_refused(folder: Path, index_folder: Path, kind: str) -> None:
    encoder = ColourEncoder()
    index, before = build(folder, index_folder), Library.open(folder)
    assert not index.is_stale(before)
    retriever = IndexRetriever(before, index, encoder)
    change(folder, kind)
    assert index.is_stale(Library.open(folder))
    with pytest.raises(BadInput, match="pleinair index"):
        IndexRetriever(Library.open(folder), index, encoder)
    if kind != "add":
        with pytest.raises(BadPicture):
            retriever.open("red.png")


def test_a_file_with_another_time_is_the_same_image(folder: Path, index_folder: Path) -> None:
    retriever = IndexRetriever(Library.open(folder), build(folder, index_folder), ColourEncoder())
    os.utime(folder / "red.png", ns=(1, 1))
    assert retriever.open("red.png").getpixel((0, 0)) == (255, 0, 0)


FILES = ("vectors-*.faiss", "catalogue-*.sqlite", "words-*/*.npy", "words-*/*.json")


@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_file_is_refused_when_the_index_is_opened_and_rebuilt(
    folder: Path, index_folder: Path, pattern: str
) -> None:
    expected = build(folder, index_folder).manifest
    for path in index_folder.glob(pattern):
        data = path.read_bytes()
        for damaged in (bytes([data[0] ^ 1]) + data[1:], data[:-1] + bytes([data[-1] ^ 1]), data[:-1], b""):
            path.write_bytes(damaged)
            with pytest.raises(BadInput, match=re.escape(path.name)) as caught:
                Index.open(index_folder, ColourEncoder())
            assert "`pleinair index FOLDER`" in str(caught.value)
        path.unlink()
        with pytest.raises(BadInput, match="cannot be read"):
            Index.open(index_folder, ColourEncoder())
        path.write_bytes(data)
    assert build(folder, index_folder).manifest == expected
    path = next(index_folder.glob(pattern))
    path.write_bytes(path.read_bytes()[:-1])
    assert build(folder, index_folder).manifest == expected
    assert verify_files(index_folder) == sum(check.size for check in expected.files.values())


@pytest.fixture
def short_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare 16 bytes of each file when an index is opened, as of a large index a small part is."""
    monkeypatch.setattr("pleinair.tools.retrieval.manifest._HEAD", 16)


@pytest.mark.usefixtures("short_head")
def test_a_damaged_vector_is_noticed_when_a_search_returns_it(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    path = vectors_file(index_folder)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    Index.open(index_folder, ColourEncoder())
    with pytest.raises(BadInput, match=r"The vector of `white.png` .* is damaged.*`pleinair index FOLDER`"):
        find(folder, index_folder, "white")
    with pytest.raises(BadInput, match=r"vectors-.*checksum"):
        verify_files(index_folder)


@pytest.mark.usefixtures("short_head")
def test_every_file_is_compared_to_its_end(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    files = [path for pattern in FILES for path in index_folder.glob(pattern)]
    assert len(files) >= 6
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(BadInput, match=re.escape(path.name)):
            verify_files(index_folder)
        path.write_bytes(data)
    verify_files(index_folder)


def test_a_catalogue_of_another_library_is_refused(folder: Path, tmp_path: Path, index_folder: Path) -> None:
    other = write_squares(tmp_path / "other")
    paint(other, "red.png", (254, 1, 0))
    first, second = build(folder, index_folder), build(other, tmp_path / "second")
    name = second.manifest.catalogue
    shutil.copy(tmp_path / "second" / name, index_folder / name)
    files = {**first.manifest.files, name: second.manifest.files[name]}
    save_manifest(index_folder, first.manifest.model_copy(update={"catalogue": name, "files": files}))
    with pytest.raises(BadInput, match="not the one that its manifest describes"):
        Index.open(index_folder, ColourEncoder())
    assert build(folder, index_folder).manifest == first.manifest


def test_an_index_of_an_earlier_format_is_rebuilt(folder: Path, index_folder: Path) -> None:
    expected = build(folder, index_folder).manifest
    edit(index_folder, version=2, rows="")
    with pytest.raises(BadInput, match="format 2; accepted: 3"):
        Index.open(index_folder, ColourEncoder())
    encoder = ColourEncoder()
    assert build(folder, index_folder, encoder).manifest == expected
    assert sum(encoder.batches) == 4


def test_an_index_is_opened_and_searched_without_reading_its_library(
    folder: Path, index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(folder, index_folder)
    scanned, expected = Library.open(folder), find(folder, index_folder, "red", 1)

    def fail(*_: object) -> None:
        raise AssertionError("the folders were read")

    monkeypatch.setattr("pleinair.tools.retrieval.roots.local.list_folders", fail)
    index = Index.open(index_folder, ColourEncoder())
    library = Library.of_catalogue(index.catalogue)
    assert dict(library.items) == dict(scanned.items) and list(library.items) == list(scanned.items)
    assert (library.facts(), library.digest) == (scanned.facts(), scanned.digest)
    assert library.path("red.png") == folder / "red.png"
    retriever = IndexRetriever(library, index, ColourEncoder())
    assert retriever.search("red", 1) == expected
    assert list(retriever.entries()) == [item.hit() for item in scanned.items.values()]


def test_new_metadata_replace_the_catalogue_and_no_vector(folder: Path, index_folder: Path) -> None:
    before = build(folder, index_folder)
    (folder / "metadata.jsonl").write_text('{"file_name": "red.png", "text": "a ruby"}', encoding="utf-8")
    encoder, library = ColourEncoder(), Library.open(folder)
    assert not before.is_stale(library) and not before.describes(library)
    after = build(folder, index_folder, encoder)
    assert encoder.batches == [] and after.manifest.vectors == before.manifest.vectors
    assert after.entries[after.entries.row("red.png")].caption == "a ruby"
    assert len(list(index_folder.glob("catalogue-*"))) == len(list(index_folder.glob("words-*"))) == 1


@pytest.mark.parametrize("place", ["moved", "copied", "part", "with a new image"])
def test_images_that_are_in_another_index_are_not_embedded_again(
    folder: Path, tmp_path: Path, place: str
) -> None:
    indexes = tmp_path / "indexes"
    build(folder, indexes / "before")
    other = folder.rename(tmp_path / "moved") if place == "moved" else tmp_path / "other"
    if place != "moved":
        shutil.copytree(folder, other, copy_function=shutil.copyfile)
    if place == "part":
        (other / "red.png").rename(other / "scarlet.png")
        (other / "blue.png").unlink()
    if place == "with a new image":
        paint(other, "new.png", (1, 2, 3))
    encoder = ColourEncoder()
    index = build(other, indexes / "after", encoder, others=indexes)
    assert sum(encoder.batches) == (1 if place == "with a new image" else 0)
    assert set(index.ids) == {path.name for path in other.glob("*.png")}
    plain = build(other, tmp_path / "plain")
    for id in index.ids:
        assert np.allclose(index.vector(id), plain.vector(id))


def test_an_index_of_another_encoder_is_not_taken_over(folder: Path, tmp_path: Path) -> None:
    build(folder, tmp_path / "indexes" / "before", ColourEncoder("colour-2"))
    encoder = ColourEncoder()
    build(folder, tmp_path / "indexes" / "after", encoder, others=tmp_path / "indexes")
    assert sum(encoder.batches) == 4


def test_an_image_is_opened_by_its_id(folder: Path, index_folder: Path) -> None:
    retriever = IndexRetriever(Library.open(folder), build(folder, index_folder), ColourEncoder())
    assert retriever.open("red.png").getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(BadInput, match="No image"):
        retriever.open("../metadata.jsonl")


def test_the_entries_are_the_usable_images_in_order_with_their_metadata(
    folder: Path, index_folder: Path
) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    retriever = IndexRetriever(Library.open(folder), build(folder, index_folder), ColourEncoder())
    entries = {hit.id: hit for hit in retriever.entries()}
    assert list(entries) == ["blue.png", "green.png", "red.png", "white.png"]
    red = {"id": "red.png", "score": 0.0, "caption": "a red square", "license": "CC0-1.0"}
    assert entries["red.png"].model_dump(exclude={"boxes"}) == red | {"source": "s", "author": "x"}
    assert {hit.score for hit in entries.values()} == {0.0}


def test_the_index_of_another_encoder_is_refused_with_both_ids(folder: Path, index_folder: Path) -> None:
    index = build(folder, index_folder)
    other = ColourEncoder("colour-2")
    with pytest.raises(BadInput, match=r"`colour-1`.*`colour-2`.*`pleinair index FOLDER`"):
        Index.open(index_folder, other)
    with pytest.raises(BadInput, match=r"`colour-1`.*`colour-2`"):
        IndexRetriever(Library.open(folder), index, other)
    build(folder, index_folder, other)
    assert sum(other.batches) == 4


def vectors_file(index_folder: Path) -> Path:
    (path,) = index_folder.glob("vectors-*.faiss")
    return path


def edit(index_folder: Path, **changes: object) -> None:
    manifest = json.loads((index_folder / "manifest.json").read_text(encoding="utf-8"))
    (index_folder / "manifest.json").write_text(json.dumps(manifest | changes), encoding="utf-8")


def test_every_mismatch_is_refused_with_actual_and_expected_value(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    manifest = (index_folder / "manifest.json").read_bytes()
    mismatches: dict[str, tuple[dict[str, object], str]] = {
        "version": ({"version": 9}, "format 9; accepted: 3"),
        "dim": ({"dim": 7}, "another checksum than it states"),
        "rows": ({"rows": "0" * 64}, "another checksum than it states"),
        "escape": ({"vectors": "../vectors-0000000000000000.faiss"}, "damaged"),
        "field": ({"surprise": 1}, "damaged"),
    }
    for changes, message in mismatches.values():
        edit(index_folder, **changes)
        with pytest.raises(BadInput, match=message) as caught:
            Index.open(index_folder, ColourEncoder())
        assert "`pleinair index FOLDER`" in str(caught.value)
        (index_folder / "manifest.json").write_bytes(manifest)


def test_vectors_of_another_shape_are_refused(folder: Path, index_folder: Path) -> None:
    manifest = build(folder, index_folder).manifest
    save_manifest(index_folder, manifest.model_copy(update={"dim": 7}))
    index = Index.open(index_folder, ColourEncoder())
    with pytest.raises(BadInput, match=r"\(4, 4\).*\(4, 7\)"):
        index.vector("red.png")
    save_manifest(index_folder, manifest.model_copy(update={"count": 9}))
    with pytest.raises(BadInput, match="not the one that its manifest describes"):
        Index.open(index_folder, ColourEncoder())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_damaged_manifest_is_refused_and_rebuilt(folder: Path, index_folder: Path, data: bytes) -> None:
    build(folder, index_folder)
    (index_folder / "manifest.json").write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        Index.open(index_folder, ColourEncoder())
    assert len(build(folder, index_folder)) == 4


def test_any_flipped_bit_of_the_vectors_is_refused(folder: Path, index_folder: Path) -> None:
    build(folder, index_folder)
    path = vectors_file(index_folder)
    data = path.read_bytes()
    for position, byte in enumerate(data):
        path.write_bytes(data[:position] + bytes([byte ^ 1]) + data[position + 1 :])
        with pytest.raises(BadInput, match="checksum"):
            Index.open(index_folder, ColourEncoder())
    assert len(build(folder, index_folder)) == 4


def test_a_missing_index_is_refused_with_the_command_that_builds_it(index_folder: Path) -> None:
    with pytest.raises(BadInput, match="`pleinair index FOLDER`"):
        Index.open(index_folder, ColourEncoder())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PALETTE, st.sampled_from(list(COLOURS)), st.integers(1, 14))
def test_search_agrees_with_brute_force(colours: list[tuple[int, int, int]], query: str, k: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "library"
        folder.mkdir()
        for number, colour in enumerate(colours):
            paint(folder, f"{number:02}.png", colour)
        build(folder, Path(root) / "index")
        encoder = ColourEncoder()
        images = [square(colour) for colour in colours]
        expected = np.sort((encoder.encode_images(images) @ encoder.encode_text([query]).T)[:, 0])[::-1][:k]
        hits = find(folder, Path(root) / "index", query, k)
        assert np.allclose([hit.score for hit in hits], np.clip(expected, -1, 1), atol=1e-6)


def test_a_query_without_a_finite_vector_is_a_model_fault(folder: Path, index_folder: Path) -> None:
    encoder = ColourEncoder()
    retriever = IndexRetriever(Library.open(folder), build(folder, index_folder), encoder)
    encoder.encode_text = lambda texts: np.full((1, 4), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(ModelFault, match="colour-1"):
        retriever.search("red", 1)
    encoder.encode_text = lambda texts: np.ones((1, 5), np.float32)  # type: ignore[method-assign]
    with pytest.raises(BadInput, match=r"\(1, 5\)"):
        retriever.search("red", 1)


def test_a_gpu_is_used_if_faiss_finds_one(
    folder: Path, index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faiss = flat.load_faiss()
    devices: list[int] = []

    def to_gpu(resources: object, device: int, index: Any, options: object) -> Any:
        devices.append(device)
        return SimpleNamespace(search=lambda query, k: index.search(query, k))

    resources = SimpleNamespace(setTempMemory=lambda size: None)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: resources, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    build(folder, index_folder)
    assert find(folder, index_folder, "red")[0].id == "red.png"
    assert set(devices) == {0}


def test_missing_faiss_is_reported_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(PleinairError, match=r"pleinair\[cpu\]"):
        flat.load_faiss()


def test_importing_the_index_loads_no_faiss() -> None:
    check = (
        "import sys, pleinair.tools.retrieval.index; print('faiss' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], env=os.environ, capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"False"]
