"""The machine: its GPU, driver, processor, memory, disk and package versions, and what its GPU attains."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from pleinair.app.runs.results import installed
from pleinair.app.verify.plan import Plan, Row, Say
from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.memory import GIB

PACKAGES = (
    "pleinair torch torchvision diffusers transformers accelerate safetensors triton open_clip_torch numpy "
    "pillow langgraph"
).split()
# TFLOP/s of dense bfloat16 products accumulated in float32, without sparsity, from NVIDIA's data sheets; by a
# part of the name that torch reports, the first that fits counts
PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "A30": 165.0,
    "A40": 149.7,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 6000 Ada": 364.2,
    "RTX A6000": 154.8,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
SIDE, COPIED = 8192, 2**30  # of the square matrices; bytes
SAME = ("pleinair", "torch", "diffusers", "gpu", "processor")  # facts that all results of a report share
_REPEATS = 10


def describe_machine(plan: Plan, say: Say) -> Iterator[Row]:
    """Yield one row with the facts of the machine, and the rates of its device, measured in a second.

    Host name, user name and paths are not among them.
    """
    import psutil
    import torch

    yield {
        **{name: installed(name) for name in PACKAGES},
        **_faiss(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": psutil.virtual_memory().total / GIB,
        "free_memory_gib": psutil.virtual_memory().available / GIB,
        "free_disk_gib": shutil.disk_usage(plan.out).free / GIB,
        "cuda": torch.version.cuda,
        **(_gpu() if torch.cuda.is_available() else {"gpu": ""}),
        **_rates(plan, say),
    }


def peak_of(gpu: str) -> float | None:
    """Return the TFLOP/s of a GPU by its data sheet; None of one that is not listed."""
    return next((peak for name, peak in PEAKS.items() if name in gpu), None)


def _faiss() -> Row:
    import faiss

    names = sorted({str(each.metadata["Name"]) for each in distributions()})
    builds = [name for name in names if name.lower().startswith("faiss")]
    return {
        "faiss": faiss.__version__,
        "faiss_build": ", ".join(builds) or "unknown",
        "faiss_gpus": faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0,
    }


def _gpu() -> Row:
    import torch

    facts = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return {
        "gpu": facts.name,
        "gpus": torch.cuda.device_count(),
        "capability": f"{facts.major}.{facts.minor}",
        "gpu_memory_gib": total / GIB,
        "free_gpu_memory_gib": free / GIB,
        "driver": _driver(),
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "peak_tflops": peak_of(facts.name),
    }


def _driver() -> str:
    """Return the version of NVIDIA's driver; "unknown" where its program is missing or fails."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().partition("\n")[0] or "unknown"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _rates(plan: Plan, say: Say) -> Row:
    """Measure the product of two square bfloat16 matrices, and a copy; on the CPU small ones in float32."""
    import torch

    say("matrix products and copies")
    device = plan.device
    side, size = (SIDE, COPIED) if device == "cuda" else (512, 2**24)
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _fastest(lambda: left @ right, device)
    copy = _fastest(lambda: target.copy_(source), device)
    return {
        "rates_of": f"{side} × {side} in {str(kind).removeprefix('torch.')} on {device}",
        "product_tflops": 2 * side**3 / product / 1e12,
        "copy_tb_s": 2 * size / copy / 1e12,  # read and written
    }


def _fastest(work: Callable[[], Any], device: str) -> float:
    """Return the seconds of the fastest of some calls, after one that is not timed."""
    from time import perf_counter

    import torch

    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else no_callback
    times = []
    for _ in range(1 + _REPEATS):
        wait()
        started = perf_counter()
        work()
        wait()
        times.append(perf_counter() - started)
    return min(times[1:])
