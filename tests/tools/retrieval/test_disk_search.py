"""Lists on disk for very many vectors, at a small size: built in blocks, searched, filtered, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.colour_encoder import ColourEncoder
from support.tiny_images import write_library

from pleinair.tools.retrieval import disk_search as disk
from pleinair.tools.retrieval import faiss_index as flat
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput

DIM, COUNT, BLOCKS = 30, 12_000, 5


@pytest.fixture(scope="module")
def rows() -> Any:
    """Return vectors in 400 clusters."""
    random = np.random.default_rng(0)
    clusters = random.standard_normal((400, DIM))[random.integers(0, 400, COUNT)]
    vectors = (clusters + 0.3 * random.standard_normal((COUNT, DIM))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def stored(rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return vectors and lists, written in several blocks."""
    folder = tmp_path_factory.mktemp("lists")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "MEMORY", 4 * DIM * -(-COUNT // BLOCKS))
        name = disk.write_flat(folder, rows, DIM)
        exact = flat.read_vectors(folder / name, COUNT, DIM)
        lists, candidates, recall = disk.write_lists(folder, name, exact)
    names = {path.name for path in folder.iterdir()}
    assert names == {name, lists, disk.lists_data(lists)}  # no parts are left
    return exact, disk.read_lists(folder / lists, COUNT, DIM, candidates), recall


def queries_of(rows: Any, noise: float) -> Any:
    random = np.random.default_rng(1)
    queries = rows[::300] + noise * random.standard_normal((len(rows[::300]), DIM)) / DIM**0.5
    return np.ascontiguousarray(queries / np.linalg.norm(queries, axis=1, keepdims=True), np.float32)


def best_of(queries: Any, rows: Any, numbers: Any = None) -> Any:
    """Return the numbers of the ten best rows of those with some numbers."""
    numbers = np.arange(len(rows)) if numbers is None else numbers
    return numbers[np.argsort(-queries @ rows[numbers].T, axis=1)[:, :10]]


def share_of(expected: Any, actual: Any) -> float:
    return float(np.mean([np.isin(one, other).mean() for one, other in zip(expected, actual, strict=True)]))


def test_vectors_written_in_blocks_are_the_file_of_faiss(
    rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    monkeypatch.setattr(disk, "MEMORY", 4 * DIM * 1000)
    index = faiss.IndexFlatIP(DIM)
    index.add(rows)
    name = disk.write_flat(tmp_path, list(rows), DIM)
    assert (tmp_path / name).read_bytes() == bytes(faiss.serialize_index(index))
    assert name == flat.write_vectors(tmp_path, list(rows), DIM)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.4])
def test_the_ten_best_are_those_of_an_exact_search(rows: Any, stored: Any, noise: float) -> None:
    exact, lists, recall = stored
    queries = queries_of(rows, noise)
    scores, numbers = flat.find_nearest(exact, queries, 10, lists=lists)
    assert recall >= disk.WANTED
    assert share_of(best_of(queries, rows), numbers) >= 0.97
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ rows.T, numbers, 1), atol=1e-6)


def test_fewer_lists_than_there_are_suffice(stored: Any) -> None:
    ivf = disk._ivf_of(stored[1].index)
    assert 1 <= ivf.nprobe < ivf.nlist
    assert ivf.nlist >= 50


@pytest.mark.parametrize("share", [0.9, 0.3, 0.02, 0.0005])
def test_a_selection_is_searched_alone(
    rows: Any, stored: Any, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(disk, "_FEW", 1)
    chosen = np.sort(np.random.default_rng(2).permutation(COUNT)[: int(share * COUNT)])
    queries, size = queries_of(rows, 0.5), min(10, len(chosen))
    _, numbers = flat.find_nearest(
        stored[0], queries, 10, selection=Selection(chosen, COUNT), lists=stored[1]
    )
    assert np.isin(numbers[:, :size], chosen).all()
    assert (numbers[:, size:] == -1).all()
    assert share_of(best_of(queries, rows, chosen), numbers[:, :size]) >= 0.97


def test_a_selection_far_from_the_query_is_complete(rows: Any, stored: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(disk, "_FEW", 1)
    farthest = np.sort(np.argsort(rows @ rows[0])[:3000])
    chosen = Selection(farthest, COUNT)
    _, numbers = flat.find_nearest(stored[0], rows[:1], 10, selection=chosen, lists=stored[1])
    assert (numbers >= 0).all() and np.isin(numbers, farthest).all()


def test_more_hits_than_candidates_are_found_exactly(rows: Any, stored: Any) -> None:
    _, numbers = flat.find_nearest(stored[0], rows[:1], COUNT, lists=stored[1])
    assert sorted(numbers[0].tolist()) == list(range(COUNT))


def test_lists_of_other_vectors_are_refused(rows: Any, tmp_path: Path) -> None:
    name = disk.write_flat(tmp_path, rows[:2000], DIM)
    lists, *_ = disk.write_lists(tmp_path, name, flat.read_vectors(tmp_path / name, 2000, DIM))
    with pytest.raises(BadInput, match="other vectors than its manifest"):
        disk.read_lists(tmp_path / lists, 2001, DIM, 480)
    (tmp_path / lists).write_bytes(b"no index")
    with pytest.raises(BadInput, match="cannot read"):
        disk.read_lists(tmp_path / lists, 2000, DIM, 480)


class WideEncoder(ColourEncoder):
    """Encoder by the pixels of a quarter of an image."""

    def encode_images(self, images: Any) -> Any:
        rows = np.stack([np.asarray(image, np.float32)[:4, :4].ravel() - 128 for image in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_an_index_above_the_limit_has_lists_that_are_searched_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, encoder = Library.open(write_library(tmp_path / "library", 600)), WideEncoder()
    plain = build_index(library, encoder, tmp_path / "plain")
    monkeypatch.setattr(flat, "LISTS_FROM", 500)
    index = build_index(library, encoder, tmp_path / "index")
    manifest = index.manifest
    assert (index.folder / manifest.lists).is_file() and manifest.recall >= disk.WANTED
    assert set(manifest.files) > {manifest.vectors, manifest.lists, disk.lists_data(manifest.lists)}
    assert not plain.manifest.lists and plain.manifest.vectors == manifest.vectors
    queries = np.stack([index.vector_at(row) for row in range(0, 600, 60)])
    same = zip(index.search(queries, 3), plain.search(queries, 3), strict=True)
    assert sum(one[0] == other[0] for one, other in same) == len(queries)
    reopened = Index.open(index.folder, encoder)
    assert reopened.search(queries, 3) == index.search(queries, 3)
    (tmp_path / "library" / "09.tar").unlink()
    smaller = build_index(Library.open(tmp_path / "library"), encoder, tmp_path / "index")
    present = {path.name for path in index.folder.iterdir() if path.name.startswith("vectors-")}
    assert present == {name for name in smaller.manifest.files if name.startswith("vectors-")}
    assert smaller.manifest.lists != manifest.lists
