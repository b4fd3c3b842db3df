"""Time the large models' shapes and FAISS on a GPU: `python -m pleinair.evals gpu`.

Pipelines have the sizes of the published configurations and random weights, so nothing is downloaded: what
they cost is real, what they generate is noise. Each part is independent: one that fails is reported with its
reason, and the next begins. `--tiny` runs the same code on tiny shapes on the CPU and times nothing. Not
covered: text encoders (the pipelines get random embeddings), offloading, formats under 16 bits, image
quality, several GPUs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from pleinair.evals.report import table, versions
from pleinair.tools.types import BadInput, ModelFault

COMMAND = "python -m pleinair.evals gpu --out evals/GPU.md"
K = 10  # hits of a search

Rows = list[dict[str, Any]]
Shape = dict[str, Any]  # of a pipeline: see `SHAPES`

SHAPES_FILE = Path(__file__).parent / "data" / "gpu_shapes.json"
# By name and size: "real", as published, or "tiny", for a CPU. A model is its class in diffusers and its
# configuration; `part` is the denoiser's name in the pipeline, `embeddings` are the call's text arguments,
# `references` the numbers of references to measure, `parts` further arguments of the pipeline's class.
SHAPES: dict[str, dict[str, Shape]] = json.loads(SHAPES_FILE.read_text("utf-8"))


def _build(shape: Shape, device: str, dtype: Any) -> Any:
    import diffusers

    scheduler, config = shape["scheduler"]
    pipeline = getattr(diffusers, shape["pipeline"])(
        vae=_random_model(shape["vae"], device, dtype),
        scheduler=getattr(diffusers, scheduler)(**config),
        **{shape["part"]: _random_model(shape["denoiser"], device, dtype)},
        **dict.fromkeys(("text_encoder", "tokenizer")),
        **shape["parts"],
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def empty_model(config: Sequence[Any]) -> Any:
    """Build a model without memory for its weights."""
    import diffusers
    import torch

    name, arguments = config
    with torch.device("meta"):
        return getattr(diffusers, name)(**arguments)


def _random_model(config: Sequence[Any], device: str, dtype: Any) -> Any:
    """Build a model with small random weights; variances and norms are 1, biases are 0."""
    import torch

    model = torch.nn.Module.to(empty_model(config), dtype).to_empty(device=device)
    model.eval().requires_grad_(False)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.ndim > 1:
                tensor.normal_(0.0, 0.02)
            else:
                tensor.fill_(1 if name.endswith(("weight", "running_var")) else 0)
    return model


def _time_shape(shape: Shape, compile: bool, tiny: bool, repeats: int) -> Rows:
    import torch

    pipeline = _build(shape, "cpu" if tiny else "cuda", torch.float32 if tiny else torch.bfloat16)
    if compile:  # as the generators do
        getattr(pipeline, shape["part"]).compile_repeated_blocks()
    try:
        return [_time_call(pipeline, shape, count, repeats) for count in shape["references"]]
    finally:
        del pipeline
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def _time_call(pipeline: Any, shape: Shape, references: int, repeats: int) -> dict[str, Any]:
    """Generate an image repeatedly, with random embeddings, grey references and the same noise."""
    import torch
    from PIL import Image

    device, noise = pipeline._execution_device, torch.Generator("cpu").manual_seed(0)
    images = [Image.new("RGB", (shape["reference"], shape["reference"]), "grey") for _ in range(references)]
    texts = {name: torch.randn(size, generator=noise) for name, size in shape["embeddings"].items()}
    arguments = {name: text.to(device, pipeline.vae.dtype) for name, text in texts.items()} | shape["call"]
    if images:
        arguments["image"] = images if shape["listed"] else images[0]

    def generate() -> None:
        pipeline(**arguments, generator=torch.Generator("cpu").manual_seed(0))
        if device.type == "cuda":
            torch.cuda.synchronize()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first, *others = [_seconds(generate) for _ in range(1 + repeats)]
    return {
        "references": references,
        "first call, s": first,
        "s an image": statistics.median(others),
        "peak, GiB": torch.cuda.max_memory_allocated() / 2**30,
    }


def _seconds(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def compare_faiss(tiny: bool, repeats: int) -> Rows:
    """Search random unit vectors exactly on CPU and GPU, several queries a call.

    The tiny form has no GPU and compares an index with its own copy. Raises `BadInput` if FAISS is built
    without CUDA.
    """
    import faiss
    import numpy as np

    rng = np.random.default_rng(0)
    vectors, queries = (
        rng.standard_normal((n, 512), dtype=np.float32) for n in (2000 if tiny else 350_000, 32)
    )
    for array in (vectors, queries):
        array /= np.linalg.norm(array, axis=1, keepdims=True)
    cpu = faiss.IndexFlatIP(512)
    cpu.add(vectors)
    if not tiny and not hasattr(faiss, "StandardGpuResources"):
        raise BadInput("FAISS is built without CUDA: install the extra `gpu` in place of `cpu`.")
    gpu = faiss.clone_index(cpu) if tiny else faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, cpu)
    rows = []
    for batch in (1, 32):
        searches = [partial(index.search, queries[:batch], K) for index in (cpu, gpu)]
        (_, ids), (_, others) = (search() for search in searches)
        times = [1000 * statistics.median(_seconds(search) for _ in range(repeats)) for search in searches]
        recalls = [len({*pair[0]} & {*pair[1]}) / K for pair in zip(ids, others, strict=True)]
        rows.append(
            {
                "queries a call": batch,
                "equal ids": float((ids == others).mean()),
                f"recall@{K}": statistics.mean(recalls),
                **dict(zip(("CPU, ms", "GPU, ms"), times, strict=True)),
            }
        )
    return rows


def add(commands: Any) -> None:
    """Add the command and its options."""
    gpu = commands.add_parser("gpu", help="time large models' shapes on a GPU", description=__doc__)
    gpu.add_argument("--tiny", action="store_true", help="run tiny shapes on the CPU, untimed, as a check")
    gpu.add_argument("--repeats", type=int, default=5, help="calls timed after the first (5)")
    gpu.add_argument("--only", default="", help="parts whose name contains this text (all)")
    gpu.add_argument("--out", type=Path, default=Path("reports/GPU.md"), help="file for the page")
    gpu.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    device = "" if options.tiny else find_gpu()
    if not device and not options.tiny:
        raise BadInput("No CUDA GPU is available; --tiny runs the same code on the CPU and times nothing.")
    parts = make_parts(options.tiny, max(1, options.repeats))
    parts = {name: measure for name, measure in parts.items() if options.only in name}
    rows, errors = [], {}
    for number, (name, measure) in enumerate(parts.items(), 1):
        try:
            rows += [{"part": name, **row} for row in measure()]
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        sys.stderr.write(f"{number}/{len(parts)} {name}: {errors.get(name, 'done')}\n")
        if device:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text("\n".join((*page_lines(rows, errors, device), "")), encoding="utf-8")
    if errors:
        raise ModelFault(f"{len(errors)} of {len(parts)} parts failed: {'; '.join(errors)}.")
    sys.stdout.write(f"{options.out}\n" if device else f"{len(parts)} parts ran on tiny shapes, untimed\n")


def find_gpu() -> str:
    """Return the GPU's name; empty if there is none."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""


def make_parts(tiny: bool, repeats: int) -> dict[str, Callable[[], Rows]]:
    """Return what is measured: each shape as it is and, unless tiny, compiled; FAISS."""
    parts: dict[str, Callable[[], Rows]] = {}
    for name, shapes in SHAPES.items():
        shape = shapes["tiny" if tiny else "real"]
        parts[name] = partial(_time_shape, shape, False, tiny, repeats)
        if not tiny:
            parts[f"{name}, compiled"] = partial(_time_shape, shape, True, tiny, repeats)
    return parts | {"FAISS": partial(compare_faiss, tiny, repeats)}


def page_lines(rows: Rows, errors: Mapping[str, str], device: str) -> Iterator[str]:
    """Yield the lines of the page: images, vectors, failed parts."""
    yield "# On a GPU\n"
    yield f"{device}; {', '.join(f'{name} {number}' for name, number in versions().items())}.\n"
    yield f"```sh\n{COMMAND}\n```\n"
    yield "Random weights of the real sizes in bfloat16, 1024 × 1024, without text encoders; the median after"
    yield "the first call. Peak memory is what tensors took. FAISS searches 350,000 × 512 float32 exactly."
    for key in ("references", "queries a call"):
        yield ""
        yield from table(
            {name: f"{value:.3f}" if isinstance(value, float) else value for name, value in row.items()}
            for row in rows
            if key in row
        )
    yield from (f"\nFailed: {name}: {error}" for name, error in errors.items())
