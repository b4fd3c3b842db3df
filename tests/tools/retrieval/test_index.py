from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.colour_encoder import COLOURS, ColourEncoder, build, find, paint, write_shelf

from pleinair.tools.retrieval import faiss_index as flat
from pleinair.tools.retrieval.filters import Filtered, distinct
from pleinair.tools.retrieval.index import Index, IndexRetriever
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput, ModelFault, PleinairError

if TYPE_CHECKING:
    pass


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return write_shelf(tmp_path / "library")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "index"


PALETTE = st.lists(
    st.tuples(st.integers(1, 255), st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=12
)


def test_the_nearest_picture_comes_first_with_its_story(shelf: Path, place: Path) -> None:
    build(shelf, place)
    best, *rest = find(shelf, place, "red")
    story = {"id": "red.png", "caption": "a red square", "license": "CC0", "source": "s", "author": "x"}
    assert best.model_dump(exclude={"score", "boxes"}) == story
    assert best.score == pytest.approx(1, abs=1e-6)
    assert [hit.id for hit in rest] == ["white.png", "blue.png"]  # blue and green tie; the id decides


def test_scores_are_the_cosines(shelf: Path, place: Path) -> None:
    build(shelf, place)
    encoder = ColourEncoder()
    for hit in find(shelf, place, "blue", k=9):
        image = encoder.encode_images([Image.open(shelf / hit.id)])
        assert hit.score == pytest.approx((image @ encoder.encode_text(["blue"]).T).item(), abs=1e-6)


def test_more_than_there_are_gives_all(shelf: Path, place: Path) -> None:
    build(shelf, place)
    assert len(find(shelf, place, "red", k=10**6)) == 4


def test_a_library_of_one_picture_works(shelf: Path, place: Path) -> None:
    for name in ("green", "blue", "white"):
        (shelf / f"{name}.png").unlink()
    assert len(build(shelf, place)) == 1
    assert [hit.id for hit in find(shelf, place, "blue")] == ["red.png"]


@pytest.mark.parametrize(("query", "k"), [("red", 0), ("red", -1), ("", 3), (" \n", 3)])
def test_bad_questions_are_bad_input(shelf: Path, place: Path, query: str, k: int) -> None:
    build(shelf, place)
    with pytest.raises(BadInput):
        find(shelf, place, query, k)


def test_copies_are_found_and_can_be_left_out(shelf: Path, place: Path) -> None:
    for number in range(20):
        paint(shelf, f"copy{number:02}.png", (255, number // 10, 0))
    retriever = IndexRetriever(Library.open(shelf), build(shelf, place), ColourEncoder())
    filtered = Filtered(retriever, distinct(retriever.vector, 0.995))
    assert [hit.id for hit in filtered.search("red", k=2)] == ["copy00.png", "white.png"]
    assert len(filtered.search("red", k=5)) == 4
    assert len(retriever.search("red", k=5)) == 5


def change(shelf: Path, how: str) -> None:
    match how:
        case "add":
            paint(shelf, "new.png", (1, 2, 3))
        case "remove":
            (shelf / "red.png").unlink()
        case "rename":
            (shelf / "red.png").rename(shelf / "scarlet.png")
        case "inpaint":
            status = (shelf / "red.png").stat()
            paint(shelf, "red.png", (9, 9, 9))
            os.utime(shelf / "red.png", ns=(status.st_atime_ns, status.st_mtime_ns + 10**6))


@pytest.mark.parametrize("how", ["add", "remove", "rename", "inpaint"])
def test_a_changed_library_is_never_served(shelf: Path, place: Path, how: str) -> None:
    encoder = ColourEncoder()
    index, before = build(shelf, place), Library.open(shelf)
    assert not index.is_stale(before)
    retriever = IndexRetriever(before, index, encoder)
    change(shelf, how)
    assert index.is_stale(Library.open(shelf))
    with pytest.raises(BadInput, match="pleinair index"):
        IndexRetriever(Library.open(shelf), index, encoder)
    if how != "add":
        with pytest.raises(BadInput, match="has changed"):
            retriever.open("red.png")


def test_a_picture_opens_by_its_id(shelf: Path, place: Path) -> None:
    retriever = IndexRetriever(Library.open(shelf), build(shelf, place), ColourEncoder())
    assert retriever.open("red.png").getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(BadInput, match="No image"):
        retriever.open("../metadata.jsonl")


def test_the_entries_are_the_usable_pictures_in_order_with_their_stories(shelf: Path, place: Path) -> None:
    (shelf / "broken.png").write_bytes(b"no picture")
    retriever = IndexRetriever(Library.open(shelf), build(shelf, place), ColourEncoder())
    listed = {hit.id: hit for hit in retriever.entries()}
    assert list(listed) == ["blue.png", "green.png", "red.png", "white.png"]
    red = {"id": "red.png", "score": 0.0, "caption": "a red square", "license": "CC0"}
    assert listed["red.png"].model_dump(exclude={"boxes"}) == red | {"source": "s", "author": "x"}
    assert {hit.score for hit in listed.values()} == {0.0}


def test_another_encoder_is_refused_with_both_names(shelf: Path, place: Path) -> None:
    index = build(shelf, place)
    other = ColourEncoder("colour-2")
    with pytest.raises(BadInput, match=r"`colour-1`.*`colour-2`.*`pleinair index FOLDER`"):
        Index.open(place, other)
    with pytest.raises(BadInput, match=r"`colour-1`.*`colour-2`"):
        IndexRetriever(Library.open(shelf), index, other)
    build(shelf, place, other)
    assert sum(other.batches) == 4


def vectors_file(place: Path) -> Path:
    (path,) = place.glob("vectors-*.faiss")
    return path


def edit(place: Path, **changes: object) -> None:
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    (place / "manifest.json").write_text(json.dumps(manifest | changes), encoding="utf-8")


def test_every_mismatch_is_refused_with_both_sides(shelf: Path, place: Path) -> None:
    build(shelf, place)
    manifest = (place / "manifest.json").read_bytes()
    wrong: dict[str, tuple[dict[str, object], str]] = {
        "version": ({"version": 9}, "format 9; accepted: 1"),
        "dim": ({"dim": 7}, r"\(4, 4\).*\(4, 7\)"),
        "count": ({"count": 9}, "counts 9 images but lists 4"),
        "checksum": ({"sha256": "0" * 64}, "checksum .*0000000000000000"),
        "escape": ({"vectors": "../vectors-0000000000000000.faiss"}, "damaged"),
        "field": ({"surprise": 1}, "damaged"),
        "absent": ({"vectors": "vectors-0000000000000000.faiss"}, "cannot be read"),
    }
    for changes, message in wrong.values():
        edit(place, **changes)
        with pytest.raises(BadInput, match=message) as caught:
            Index.open(place, ColourEncoder())
        assert "`pleinair index FOLDER`" in str(caught.value)
        (place / "manifest.json").write_bytes(manifest)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_damaged_manifest_is_refused_and_built_anew(shelf: Path, place: Path, data: bytes) -> None:
    build(shelf, place)
    (place / "manifest.json").write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        Index.open(place, ColourEncoder())
    assert len(build(shelf, place)) == 4


def test_no_flipped_bit_of_the_vectors_is_served(shelf: Path, place: Path) -> None:
    build(shelf, place)
    path = vectors_file(place)
    data = path.read_bytes()
    for place_in_file in range(len(data)):
        path.write_bytes(data[:place_in_file] + bytes([data[place_in_file] ^ 1]) + data[place_in_file + 1 :])
        with pytest.raises(BadInput, match="checksum"):
            Index.open(place, ColourEncoder())
    assert len(build(shelf, place)) == 4


def test_no_index_says_how_to_build_one(place: Path) -> None:
    with pytest.raises(BadInput, match="`pleinair index FOLDER`"):
        Index.open(place, ColourEncoder())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PALETTE, st.sampled_from(list(COLOURS)), st.integers(1, 14))
def test_search_agrees_with_brute_force(colours: list[tuple[int, int, int]], query: str, k: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        shelf = Path(root) / "library"
        shelf.mkdir()
        for number, colour in enumerate(colours):
            paint(shelf, f"{number:02}.png", colour)
        build(shelf, Path(root) / "index")
        encoder = ColourEncoder()
        images = [Image.new("RGB", (8, 8), colour) for colour in colours]
        wanted = np.sort((encoder.encode_images(images) @ encoder.encode_text([query]).T)[:, 0])[::-1][:k]
        found = find(shelf, Path(root) / "index", query, k)
        assert np.allclose([hit.score for hit in found], np.clip(wanted, -1, 1), atol=1e-6)


def test_a_query_without_a_finite_vector_is_a_model_fault(shelf: Path, place: Path) -> None:
    encoder = ColourEncoder()
    retriever = IndexRetriever(Library.open(shelf), build(shelf, place), encoder)
    encoder.encode_text = lambda texts: np.full((1, 4), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(ModelFault, match="colour-1"):
        retriever.search("red", 1)
    encoder.encode_text = lambda texts: np.ones((1, 5), np.float32)  # type: ignore[method-assign]
    with pytest.raises(BadInput, match=r"\(1, 5\)"):
        retriever.search("red", 1)


def test_a_gpu_is_used_where_faiss_finds_one(
    shelf: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faiss = flat.load_faiss()
    copied: list[int] = []

    def to_gpu(resources: object, device: int, index: Any) -> Any:
        copied.append(device)
        return SimpleNamespace(search=lambda query, k: index.search(query, k))

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    build(shelf, place)
    assert find(shelf, place, "red")[0].id == "red.png"
    assert set(copied) == {0}


def test_missing_faiss_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(PleinairError, match=r"pleinair\[cpu\]"):
        flat.load_faiss()


def test_importing_the_index_loads_no_faiss() -> None:
    check = (
        "import sys, pleinair.tools.retrieval.index; print('faiss' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], env=os.environ, capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"False"]
