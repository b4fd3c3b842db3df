"""Vectors in a FAISS file: exact if few, coded and refined if many, memory-mapped, exact on a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pleinair.tools.retrieval import coded_search
from pleinair.tools.retrieval import faiss_index as flat
from pleinair.tools.retrieval.coded_search import MOST_MISSING, _missing, code_bytes
from pleinair.tools.retrieval.exact_search import Selection, exact_of

DIM, COUNT = 32, 3000
MANY = pytest.mark.parametrize("exact_below", [10**6, 1000], ids=["exact", "coded"])


@pytest.fixture(scope="module")
def rows() -> Any:
    """Return vectors in a hundred clusters, as images of a hundred things have."""
    rng = np.random.default_rng(0)
    clusters = rng.standard_normal((100, DIM))[rng.integers(0, 100, COUNT)]
    vectors = (clusters + 0.3 * rng.standard_normal((COUNT, DIM))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def stored(folder: Path, rows: Any) -> Any:
    """Write vectors and read them."""
    name = flat.write_vectors(folder, list(rows), rows.shape[1])
    return flat.read_vectors(folder / name, *rows.shape)


@MANY
def test_the_nearest_ten_have_exact_cosines(
    tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, exact_below: int
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", exact_below)
    index, correct = stored(tmp_path, rows), 0
    for row in rows[::300]:
        query = np.roll(row, 1)[None] * 0.3 + row[None]
        query /= np.linalg.norm(query)
        scores, numbers = flat.find_nearest(index, query, 10)
        cosines = (rows @ query.T)[:, 0]
        np.testing.assert_allclose(scores[0], cosines[numbers[0]], atol=1e-6)
        correct += len(set(numbers[0].tolist()) & set(np.argsort(-cosines)[:10].tolist()))
    assert correct >= 99


@MANY
def test_more_hits_than_are_refined_are_exact(
    tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, exact_below: int
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", exact_below)
    scores, numbers = flat.find_nearest(stored(tmp_path, rows), rows[:1], COUNT)
    assert sorted(numbers[0].tolist()) == list(range(COUNT))
    np.testing.assert_allclose(scores[0], np.sort(rows @ rows[0])[::-1], atol=1e-5)


@MANY
def test_a_vector_is_stored_exactly(
    tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, exact_below: int
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", exact_below)
    np.testing.assert_array_equal(stored(tmp_path, rows).reconstruct(7), rows[7])


@MANY
def test_the_file_is_memory_mapped(
    tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, exact_below: int
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", exact_below)
    index = stored(tmp_path, rows)
    assert index.ntotal == COUNT
    assert str(tmp_path) in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("dim", [1, 3, 31])
def test_any_dimension_can_be_coded(
    tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, dim: int
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", 1000)
    part = np.ascontiguousarray(rows[:, :dim])
    index = stored(tmp_path, part)
    assert exact_of(index) is not index
    assert index.base_index.sa_code_size() == code_bytes(dim)
    scores = flat.find_nearest(index, part[:5], 10)[0]
    np.testing.assert_allclose(scores, -np.sort(-part[:5] @ part.T, axis=1)[:, :10], atol=1e-5)


@MANY
@pytest.mark.parametrize("share", [0.9, 0.3, 0.01, 0.002, 0])
def test_a_search_of_selected_rows_is_that_of_an_index_of_them(
    tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, exact_below: int, share: float
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", exact_below)
    monkeypatch.setattr(coded_search, "_FEW", 100)
    chosen = np.sort(np.random.default_rng(1).permutation(COUNT)[: int(share * COUNT)])
    queries, selection = rows[::500], Selection(chosen, COUNT)
    scores, numbers = flat.find_nearest(stored(tmp_path, rows), queries, 10, selection=selection)
    products = np.full((len(queries), COUNT), -np.inf, np.float32)
    products[:, chosen] = queries @ rows[chosen].T
    size = min(10, len(chosen))
    np.testing.assert_allclose(scores[:, :size], -np.sort(-products, axis=1)[:, :size], atol=1e-6)
    assert np.isin(numbers[:, :size], chosen).all()
    assert (numbers[:, size:] == -1).all() and np.isneginf(scores[:, size:]).all()


def test_a_selection_far_from_the_query_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", 1000)
    monkeypatch.setattr(coded_search, "_FEW", 100)
    rows = spread(20_000, 20, 0.5, 0)
    query = rows[:1]
    farthest = np.sort(np.argsort(rows @ query[0])[:10_000])
    numbers = flat.find_nearest(stored(tmp_path, rows), query, 10, selection=Selection(farthest, 20_000))[1]
    correct = farthest[np.argsort(-rows[farthest] @ query[0])[:10]]
    assert set(numbers[0].tolist()) == set(correct.tolist())


class OnCpu:
    """Stand-in for FAISS's copy on a GPU: float16, and at most 2,048 neighbours."""

    def __init__(self, index: Any) -> None:
        self.index = flat.load_faiss().IndexFlatIP(index.d)
        self.index.add(index.reconstruct_n(0, index.ntotal).astype(np.float16).astype(np.float32))

    def search(self, queries: Any, k: int) -> Any:
        assert k <= 2048
        return self.index.search(queries, k)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace the GPU; return the options of the copies that were made."""
    faiss, options = flat.load_faiss(), list[Any]()

    def copy(resources: Any, device: int, index: Any, cloner: Any) -> OnCpu:
        assert device == 0 and type(index) is faiss.IndexFlatIP
        options.append(cloner)
        return OnCpu(index)

    resources = SimpleNamespace(setTempMemory=lambda size: None)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: resources, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
    return options


@MANY
def test_the_scores_of_the_index_on_a_gpu_are_exact(
    tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, gpu: list[Any], exact_below: int
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", exact_below)
    copied = flat.on_gpu(stored(tmp_path, rows), 4.0)
    assert copied is not None and gpu[0].useFloat16
    queries = rows[::300]
    for k in (1, 10, flat.GPU_K):
        scores = copied.search(queries, k)[0]
        np.testing.assert_allclose(scores, -np.sort(-queries @ rows.T, axis=1)[:, :k], atol=1e-6)


def test_an_index_over_its_budget_stays_on_the_cpu(
    tmp_path: Path, rows: Any, gpu: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert flat.on_gpu(stored(tmp_path, rows), 0.25) is None and not gpu
    assert "0.25 of 0.25 GiB" in caplog.text


def test_without_a_gpu_nothing_is_copied(tmp_path: Path, rows: Any) -> None:
    assert flat.on_gpu(stored(tmp_path, rows[:5]), 4.0) is None


def spread(count: int, clusters: int, noise: float, seed: int) -> Any:
    """Return unit vectors around as many points, float32; 0 clusters: in all directions."""
    rng = np.random.default_rng(seed)
    points = np.random.default_rng(9).standard_normal((max(clusters, 1), DIM))
    centres = points[rng.integers(0, len(points), count)] * (clusters > 0)
    vectors = (centres + noise * rng.standard_normal((count, DIM))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("clusters", "noise"), [(2000, 0.3), (20, 1.0), (0, 1.0)])
def test_codes_lose_one_in_a_thousand_of_the_ten_best_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clusters: int, noise: float
) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", 1000)
    rows, queries = spread(20_000, clusters, noise, 0), spread(120, clusters, 1.5 * noise, 1)
    index = stored(tmp_path, rows)
    correct = exact_of(index).search(queries, 10)[1]

    def recall(found: Any) -> float:
        pairs = zip(found.tolist(), correct.tolist(), strict=True)
        return float(sum(len({*mine} & {*theirs}) for mine, theirs in pairs) / correct.size)

    scores, together = flat.find_nearest(index, queries, 10)
    alone = np.concatenate([flat.find_nearest(index, query[None], 10)[1] for query in queries])
    assert recall(together) >= 0.999 and recall(alone) >= 0.999
    assert (np.diff(scores) <= 0).all()
    only_codes = flat.find_nearest(index, queries, 10, complete=False)[1]
    assert recall(only_codes) < 1  # so what is missing was noticed, and searched for exactly


def test_of_many_hits_the_ten_best_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "EXACT_BELOW", 1000)
    rows, queries = spread(20_000, 2000, 0.3, 0), spread(120, 2000, 0.45, 1)
    index = stored(tmp_path, rows)
    correct = exact_of(index).search(queries, 200)[1]
    numbers = flat.find_nearest(index, queries, 200)[1]
    shares = [float(np.isin(correct[:, :hits], numbers).mean()) for hits in (10, 200)]
    assert shares[0] >= 0.999 and 0.5 < shares[1] < 1
    assert all(len({*row}) == 200 and min(row) >= 0 for row in numbers.tolist())


def test_a_search_ends_only_where_nothing_is_missing() -> None:
    rng = np.random.default_rng(0)
    products = rng.standard_normal((40, 50_000)).astype(np.float32)
    scores = 0.8 * products + 0.4 * rng.standard_normal(products.shape).astype(np.float32)
    order, shares = np.argsort(-scores, axis=1), []
    for count in (200, 1000, 5000, 20_000):
        chosen = order[:, :count]
        candidates = np.take_along_axis(products, chosen, 1)
        last = np.sort(candidates, axis=1)[:, -10]
        missing = (products >= last[:, None]).sum(1) - 10
        ends = (
            np.array(_missing(np.take_along_axis(scores, chosen, 1), candidates, last)) <= 10 * MOST_MISSING
        )
        assert missing[ends].sum() <= 10 * MOST_MISSING * len(ends)
        shares.append(ends.mean())
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
