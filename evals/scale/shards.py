"""Indexing a library in shares, each in a process of its own, and joining them, against one process.

Both begin with an empty home folder; every process has one thread. They alternate, and must write the same
vectors. The ratio of the processor's time is what the division itself costs, mostly starts of processes and
loads of the encoder; that of the clock depends on how many cores are free.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from pleinair.evals.scale.command import write_figures
from pleinair.tools.pocket.catalogue.library import write_library
from pleinair.tools.retrieval.manifest import load_manifest
from pleinair.tools.types import ModelFault

_PROGRAM = "from pleinair.app.cli.main import main; main()"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--folder", type=Path, help="a folder of images; the pocket library if omitted")
    parser.add_argument("--profile", default="pocket", help="whose encoder is used")
    parser.add_argument("--shards", type=int, default=2, help="shares, in as many processes")
    parser.add_argument("--repeat", type=int, default=3, help="of both, alternating; the best of each counts")


def run(options: argparse.Namespace) -> None:
    """Index in both ways, and print the seconds and their ratios; raise `ModelFault` if vectors differ."""
    clocks: dict[str, list[float]] = {"one": [], "shares": []}
    processor: dict[str, list[float]] = {"one": [], "shares": []}
    parts = [["--shard", f"{number}/{options.shards}"] for number in range(1, options.shards + 1)]
    ways: dict[str, list[list[list[str]]]] = {"one": [[[]]], "shares": [parts, [[]]]}  # commands at once
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place, "pocket")
        if options.folder is None:
            write_library(folder)
        command = [sys.executable, "-c", _PROGRAM, "index", str(folder), "--profile", options.profile]
        for number in range(options.repeat):
            vectors = set()
            for name, steps in ways.items():
                home = Path(place, f"{name}-{number}")
                start, before = perf_counter(), _processor_seconds()
                for step in steps:
                    _run_at_once([[*command, *arguments] for arguments in step], home)
                clocks[name].append(perf_counter() - start)
                processor[name].append(_processor_seconds() - before)
                (manifest,) = home.rglob("manifest.json")
                vectors.add(load_manifest(manifest.parent).vectors)  # named by their content
            if len(vectors) > 1:
                raise ModelFault("The shares have other vectors than one process: the encoder varies.")
    figures = {
        "shards": options.shards,
        "repeat": options.repeat,
        "clock": {name: min(seconds) for name, seconds in clocks.items()},
        "processor": {name: min(seconds) for name, seconds in processor.items()},
    }
    for title, values in (("clock", clocks), ("processor", processor)):
        one, shares = min(values["one"]), min(values["shares"])
        text = f"one process {one:.1f} s, {options.shards} shares and joining them {shares:.1f} s"
        print(f"{title}: {text}: {shares / one:.2f} times")
    write_figures(options.json, figures)


def _run_at_once(commands: Sequence[Sequence[str]], home: Path) -> None:
    """Run commands at the same time, each on one thread, and wait for all; raise if one fails."""
    environment = os.environ | {"PLEINAIR_HOME": str(home), "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for command in commands]
    for process in running:
        if code := process.wait():
            raise ChildProcessError(f"{' '.join(process.args[3:])}: exit code {code}")  # type: ignore[index, arg-type]


def _processor_seconds() -> float:
    """Return the processor's time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
