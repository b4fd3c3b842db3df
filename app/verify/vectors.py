"""FAISS on the GPU against the CPU: equal ids, recall and milliseconds a call, by pleinair's own index.

The vectors are synthetic, made as CLIP's are distributed: clusters of images around a common direction, and
queries off the clusters, as texts are. Not covered: several GPUs, codes, filters.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from pleinair.app.verify.plan import CannotMeasure, Plan, Row, Say
from pleinair.tools.retrieval.faiss_index import GpuIndex, find_nearest, load_faiss

COUNT, DIM, K = 350_000, 512, 10
BATCHES = (1, 32)
_TINY_COUNT, _CLUSTERS = 2000, 1000
_SPREAD, _GAP = 0.9, 2.0  # of images around their cluster; share of noise in a query


def compare_faiss(plan: Plan, say: Say) -> Iterator[Row]:
    """Yield a row for each batch of queries; raise `CannotMeasure` without a GPU or a build for it.

    The tiny form has no GPU and compares an index with its copy.
    """
    faiss = load_faiss()
    if not plan.tiny:
        _require_gpu(faiss)
    say("synthetic vectors")
    vectors, queries = _make_vectors(_TINY_COUNT if plan.tiny else COUNT, max(BATCHES))
    cpu = faiss.IndexFlatIP(DIM)
    cpu.add(vectors)
    started = perf_counter()
    gpu = faiss.clone_index(cpu) if plan.tiny else GpuIndex(cpu)
    seconds = perf_counter() - started
    for batch in BATCHES:
        say(f"{batch} queries a call")
        yield {
            "vectors": len(vectors),
            "batch": batch,
            "copy_s": seconds,
            **_compare(cpu, gpu, vectors, queries[:batch], 2 if plan.tiny else 20),
        }
    del gpu
    gc.collect()


def _make_vectors(count: int, queries: int, seed: int = 0) -> tuple[Any, Any]:
    """Return unit vectors [count, 512] in 1,000 clusters, and queries [queries, 512] with a gap to them.

    A query is a cluster's centre with noise of twice its length, so that its best cosines are near 0.4, and
    no vector is its origin.
    """
    rng = np.random.default_rng(seed)

    def noise(rows: int) -> Any:
        return rng.standard_normal((rows, DIM), dtype=np.float32) / np.float32(np.sqrt(DIM))

    centres = _unit(noise(_CLUSTERS) + noise(1))
    vectors = centres[rng.integers(_CLUSTERS, size=count)] + np.float32(_SPREAD) * noise(count)
    chosen = centres[rng.integers(_CLUSTERS, size=queries)]
    return _unit(vectors), _unit(chosen + np.float32(_GAP) * noise(queries))


def _unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _require_gpu(faiss: Any) -> None:
    import torch

    if not torch.cuda.is_available():
        raise CannotMeasure("no CUDA GPU")
    if not hasattr(faiss, "StandardGpuResources"):
        raise CannotMeasure(
            "FAISS is built without CUDA", "Install the extra `gpu` in place of `cpu` (docs/install.md)."
        )
    if faiss.get_num_gpus() < 1:
        raise CannotMeasure("FAISS finds no GPU that torch finds", "Its CUDA may not fit the driver.")


def _compare(cpu: Any, gpu: Any, vectors: Any, queries: Any, repeats: int) -> Row:
    """Compare ids and cosines of both, and the exact cosines of what the GPU found; time both."""
    searches = [partial(find_nearest, cpu), gpu.search]
    (scores, ids), (others, found) = (search(queries, K) for search in searches)
    exact = np.einsum("qkd,qd->qk", vectors[found], queries)
    times = [_milliseconds(partial(search, queries, K), repeats) for search in searches]
    return {
        "equal_ids": float((ids == found).mean()),
        f"recall_at_{K}": statistics.mean(len({*a} & {*b}) / K for a, b in zip(ids, found, strict=True)),
        "score_difference": float(np.abs(scores - others).max()),
        "score_error": float(np.abs(others - exact).max()),
        **dict(zip(("cpu_ms", "gpu_ms"), times, strict=True)),
    }


def _milliseconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = perf_counter()
        call()
        times.append(1000 * (perf_counter() - started))
    return statistics.median(times)
