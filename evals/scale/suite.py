"""All benchmarks of cost against size, one after the other, then the plots and tables of them.

Each runs in a process of its own and writes its figures into one folder. Nothing else should run meanwhile.
The largest library takes 10 GB of memory and 4 GB of disk at a million images.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from pleinair.evals.report import versions
from pleinair.evals.scale import page
from pleinair.evals.scale.command import write_figures
from pleinair.tools.types import BadInput, PleinairError

SIZES = 1_000, 10_000, 100_000, 350_000, 1_000_000
# by the name of the file: the words after `scale`; sizes are added to those that have them
PLAN: dict[str, tuple[str, ...]] = {
    "steps": ("steps",),
    "startup": ("startup",),
    "embedding-8": ("embedding", "--images", "8", "--turns", "3"),
    "embedding-32": ("embedding", "--images", "32", "--turns", "3"),
    "embedding-128": ("embedding", "--images", "128", "--turns", "2"),
    "search": ("search", "--sizes"),
    "library": ("library", "--repeat", "3", "--sizes"),
}
MACHINE = "machine"  # the file of what the others ran on


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--out", type=Path, default=Path("reports/scale"), help="folder (reports/scale)")
    parser.add_argument("--most", type=int, default=max(SIZES), help=f"most images ({max(SIZES):,})")
    parser.add_argument("--only", nargs="+", choices=PLAN, metavar="name", help=f"of {', '.join(PLAN)}")
    page.add_page_option(parser)


def run(options: argparse.Namespace) -> None:
    """Run the benchmarks, then write plots and tables of all figures that are in the folder."""
    sizes = [str(size) for size in SIZES if size <= options.most]
    if not sizes:
        raise BadInput(f"--most {options.most}: must be at least {min(SIZES):,}")
    names = options.only or list(PLAN)
    write_figures(options.out / f"{MACHINE}.json", _describe_machine())
    for number, name in enumerate(names, 1):
        words = (*PLAN[name], *(sizes if PLAN[name][-1] == "--sizes" else ()))
        print(f"[{number}/{len(names)}] {' '.join(words)}", file=sys.stderr, flush=True)
        started = time.monotonic()
        _run_one(words, options.out / f"{name}.json")
        print(f"[{number}/{len(names)}] {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    options.folder = options.out
    page.run(options)


def _run_one(words: Sequence[str], file: Path) -> None:
    """Run a benchmark in a process of its own; raise `PleinairError` if it fails."""
    command = [sys.executable, "-m", "pleinair.evals", "scale", *words, "--json", str(file)]
    if subprocess.run(command).returncode:
        raise PleinairError(f"`{' '.join(command[1:])}` failed.", "The other figures stay; use `--only`.")


def _describe_machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, memory, load and versions."""
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "load": os.getloadavg()[0],
        "system": platform.platform(terse=True),
        "versions": versions(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else ()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
