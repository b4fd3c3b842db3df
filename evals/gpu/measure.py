"""Time one pipeline of random weights, and FAISS on the GPU against the CPU."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

from pleinair.evals.gpu.shapes import SHAPES, Shape, build
from pleinair.tools.types import BadInput

Figures = dict[str, Any]
DIM, K = 512, 10  # of vectors; hits compared


def time_shape(name: str, compile: bool, tiny: bool, repeats: int) -> list[Figures]:
    """Draw with each number of references: the first call's seconds, the median of the others, peak GiB."""
    import torch

    shape = SHAPES[name](tiny)
    device = "cpu" if tiny else "cuda"
    pipeline = build(shape, device, torch.float32 if tiny else torch.bfloat16)
    if compile:  # as the engines do
        getattr(pipeline, shape.part).compile_repeated_blocks()
    try:
        return [_time_call(pipeline, shape, count, repeats) for count in shape.references]
    finally:
        del pipeline
        if compile:
            torch.compiler.reset()
        gc.collect()
        if not tiny:
            torch.cuda.empty_cache()


def _time_call(pipeline: Any, shape: Shape, references: int, repeats: int) -> Figures:
    """Draw one picture some times over."""
    import torch

    device = pipeline._execution_device
    call = _arguments(shape, references, device, pipeline.vae.dtype)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    first, *others = [_seconds(lambda: pipeline(**call), on_gpu) for _ in range(1 + repeats)]
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    return {"references": references, "first": first, "seconds": statistics.median(others), "peak": peak}


def _arguments(shape: Shape, references: int, device: Any, dtype: Any) -> Figures:
    """Make the call's arguments: random embeddings, grey references, the same noise each time."""
    import torch
    from PIL import Image

    noise = torch.Generator("cpu").manual_seed(0)
    texts = {
        name: torch.randn(size, generator=noise).to(device, dtype) for name, size in shape.embeddings.items()
    }
    pictures = [Image.new("RGB", (shape.reference, shape.reference), "grey") for _ in range(references)]
    given = {"image": pictures if shape.listed else pictures[0]} if pictures else {}
    size = {"height": shape.side, "width": shape.side, "output_type": "np"}
    return {**texts, **given, **size, **shape.call, "generator": torch.Generator("cpu").manual_seed(0)}


def _seconds(call: Callable[[], Any], on_gpu: bool) -> float:
    """Time a call to the end of what it started on the GPU."""
    import torch

    started = perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize()
    return perf_counter() - started


def compare_faiss(tiny: bool, repeats: int) -> list[Figures]:
    """Search random unit vectors exactly on both: share of equal ids, recall, and milliseconds a call.

    The small form has no GPU and compares an index with its own copy. Raise `BadInput` where FAISS was
    built without CUDA.
    """
    import faiss
    import numpy as np

    count = 2000 if tiny else 350_000
    rng = np.random.default_rng(0)
    vectors, queries = _unit(rng, count), _unit(rng, 32)
    on_cpu = faiss.IndexFlatIP(DIM)
    on_cpu.add(vectors)
    other = faiss.clone_index(on_cpu) if tiny else _to_gpu(faiss, on_cpu)
    rows = []
    for batch in (1, 32):
        asked = queries[:batch]
        ids, theirs = on_cpu.search(asked, K)[1], other.search(asked, K)[1]
        found = np.mean([len(set(a) & set(b)) / K for a, b in zip(ids, theirs, strict=True)])
        cpu, gpu = (_milliseconds(index, asked, repeats) for index in (on_cpu, other))
        equal = float((ids == theirs).mean())
        rows.append({"batch": batch, "equal": equal, "recall": float(found), "cpu": cpu, "gpu": gpu})
    return rows


def _unit(rng: Any, count: int) -> Any:
    """Make random rows of length 1, float32 [count, DIM]."""
    import numpy as np

    rows = rng.standard_normal((count, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _to_gpu(faiss: Any, index: Any) -> Any:
    """Copy an index to the first GPU."""
    if not hasattr(faiss, "StandardGpuResources"):
        raise BadInput("FAISS is built without CUDA here: install the extra `gpu` in place of `cpu`.")
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def _milliseconds(index: Any, queries: Any, repeats: int) -> float:
    """Time a search; the median, of which FAISS itself waits for the GPU."""
    times = []
    for _ in range(repeats):
        started = perf_counter()
        index.search(queries, K)
        times.append(1000 * (perf_counter() - started))
    return statistics.median(times)
