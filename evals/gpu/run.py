"""Time the large models' shapes on a GPU: `python -m pleinair.evals gpu`.

Random weights of the real sizes, so nothing is downloaded. Each part stands on its own: one that fails is
written down with its reason, and the next begins. Without a GPU the same code runs on tiny shapes, whose
times say nothing. Not covered: text encoders, picture quality, several GPUs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pleinair.evals.report import versions
from pleinair.tools.types import ModelFault

COMMAND = "python -m pleinair.evals gpu --out evals/GPU.md"
NO_GPU = "No GPU here: nothing is timed; the same code ran on tiny shapes on the CPU."
PICTURES = (
    "| model | compiled | references | first call, s | s an image | peak, GiB |",
    "| --- | --- | --- | --- | --- | --- |",
)
VECTORS = (
    "| queries a call | equal ids | recall@10 | CPU, ms | GPU, ms |",
    "| --- | --- | --- | --- | --- |",
)


@dataclass
class Part:
    """Hold one part: what it measures, and its rows or why there are none."""

    name: str
    measure: Callable[[], list[dict[str, Any]]]
    compiled: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    fault: str = ""

    @property
    def title(self) -> str:
        """Name the part, and say that it is compiled."""
        return f"{self.name}{', compiled' * self.compiled}"

    def run(self) -> None:
        """Measure; whatever goes wrong is kept, and ends this part only."""
        try:
            self.rows = self.measure()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def add(commands: Any) -> None:
    """Add the command and its options."""
    gpu = commands.add_parser("gpu", help="time large models' shapes on a GPU", description=__doc__)
    gpu.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU, to see that all runs")
    gpu.add_argument("--repeats", type=int, default=5, help="calls timed after the first (5)")
    gpu.add_argument("--only", default="", help="parts whose name has this in it (all)")
    gpu.add_argument("--out", type=Path, default=Path("reports/GPU.md"), help="where the page goes")
    gpu.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the parts, write the page after each, and raise `ModelFault` if some failed."""
    device = find_gpu()
    tiny = options.tiny or not device
    if not device:
        sys.stdout.write(f"{NO_GPU}\n")
    todo = [part for part in make_parts(tiny, max(1, options.repeats)) if options.only in part.name]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for done, part in enumerate(todo, 1):
        part.run()
        told = part.fault or "done"
        sys.stderr.write(f"{done}/{len(todo)} {part.title}: {told}\n")
        options.out.write_text(write_page(todo[:done], "" if tiny else device), encoding="utf-8")
    sys.stdout.write(f"{options.out}\n")
    if failed := [part.name for part in todo if part.fault]:
        raise ModelFault(f"{len(failed)} of {len(todo)} parts failed: {', '.join(failed)}; see {options.out}")


def find_gpu() -> str:
    """Name the GPU; empty where there is none."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""


def make_parts(tiny: bool, repeats: int) -> list[Part]:
    """List what is measured: each shape as it is and, unless tiny, compiled; FAISS."""
    from pleinair.evals.gpu.measure import compare_faiss, time_shape
    from pleinair.evals.gpu.shapes import SHAPES

    shapes = [
        Part(name, partial(time_shape, name, compiled, tiny, repeats), compiled)
        for name in SHAPES
        for compiled in ((False,) if tiny else (False, True))
    ]
    return [*shapes, Part("FAISS", partial(compare_faiss, tiny, repeats))]


def write_page(parts: list[Part], device: str) -> str:
    """Write the page; times only where they are a GPU's."""
    lines = ["# On a GPU", "", *(_measured(parts, device) if device else _unmeasured(parts)), ""]
    return "\n".join(lines)


def _unmeasured(parts: list[Part]) -> Iterator[str]:
    """Say what is not known, and how to get to know it."""
    ran = sum(not part.fault for part in parts)
    yield "No GPU was at hand, so nothing here is measured. One command measures it and rewrites this page:"
    yield from ("", "```sh", COMMAND, "```", "", "Not measured:", "")
    yield "- seconds an image and peak memory of SDXL, FLUX.2-klein-4B and FLUX.1 shapes (random weights of"
    yield "  the real sizes, bfloat16, 1024 × 1024), each with and without compiling the repeated blocks;"
    yield "- what references cost: FLUX.2-klein-4B with 0 to 4 of 512 pixels, with and without reuse of their"
    yield "  keys and values; FLUX.1 Kontext with 0 and 1 of 1024 pixels;"
    yield "- FAISS on the GPU against the CPU: equal ids, recall@10, milliseconds a call at 350,000 × 512;"
    yield "- the pocket models trained larger, which the command does not do at all."
    yield from ("", "Text encoders are in no figure: the pipelines are given random embeddings.", "")
    yield f"On tiny shapes on the CPU, {ran} of {len(parts)} parts of the same code ran to their end."
    yield from _faults(parts)


def _measured(parts: list[Part], device: str) -> Iterator[str]:
    """Give the figures as tables."""
    yield f"{device}; {', '.join(f'{name} {number}' for name, number in versions().items())}."
    yield from ("", "```sh", COMMAND, "```", "")
    yield "Random weights of the real sizes in bfloat16, 1024 × 1024, without text encoders; the median after"
    yield from ("the first call. Peak memory is what tensors took.", "", *PICTURES)
    yield from (_drawn(part, row) for part in parts for row in part.rows if "references" in row)
    yield from ("", "FAISS, exact search in 350,000 × 512 float32:", "", *VECTORS)
    yield from (_searched(row) for part in parts for row in part.rows if "batch" in row)
    yield from _faults(parts)


def _drawn(part: Part, row: dict[str, Any]) -> str:
    """Write one row of the pictures' table."""
    times = f"{row['first']:.2f} | {row['seconds']:.3f} | {row['peak'] or 0:.1f}"
    return f"| {part.name} | {'yes' if part.compiled else 'no'} | {row['references']} | {times} |"


def _searched(row: dict[str, Any]) -> str:
    """Write one row of the vectors' table."""
    shares = f"{row['equal']:.2%} | {row['recall']:.4f}"
    return f"| {row['batch']} | {shares} | {row['cpu']:.2f} | {row['gpu']:.2f} |"


def _faults(parts: list[Part]) -> Iterator[str]:
    """List the parts that failed, with why."""
    for part in parts:
        if part.fault:
            yield from ("", f"Failed: {part.title}: {part.fault}")
