"""Command `scale`: one benchmark of cost against size, by its name.

A benchmark is a module with `add_options(parser)` and `run(options)`. It prints ratios against a reference
that is measured in the same run, and writes its figures to the file of `--json`, if there is one. Only the
module that is named is imported.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

MODULES = {
    "all": ("pleinair.evals.scale.suite", "every cost against size, with plots and tables"),
    "report": ("pleinair.evals.scale.page", "nothing, and write plots and tables of figures"),
    "library": (
        "pleinair.evals.scale.library",
        "time, memory and bytes of a library, its index and a first search",
    ),
    "pages": ("pleinair.evals.scale.pages", "lists of the library page, filtered and by pages"),
    "mllm": ("pleinair.evals.scale.mllm", "MLLM calls and tokens of our loop against ImageRAG's flow"),
    "embedding": ("pleinair.evals.scale.embedding", "indexing against open_clip's own loop"),
    "shards": ("pleinair.evals.scale.shards", "a library indexed in shares against one process"),
    "ray": ("pleinair.evals.scale.ray", "a library indexed by Ray on nodes of this machine"),
    "lists": ("pleinair.evals.scale.lists", "search by lists on disk, against FAISS's flat index"),
    "sources": ("pleinair.evals.scale.sources", "images in tar, Parquet and Arrow against files"),
    "startup": ("pleinair.evals.scale.startup", "a cold and a warm run of the pocket engines, by phases"),
    "attempts": (
        "pleinair.evals.scale.attempts",
        "attempts with cached encodings, batches of seeds, and threads, as ratios",
    ),
    "serve": ("pleinair.evals.scale.serve", "images a second of Ray Serve against one process"),
    "steps": ("pleinair.evals.scale.steps", "time, bytes and memory of durable steps, and of a chat's turns"),
    "workers": ("pleinair.evals.scale.workers", "worker processes on one queue whose units wait"),
    "search": (
        "pleinair.evals.scale.search",
        "one search and a batch of 32, against FAISS's flat index",
    ),
    "pgvector": (
        "pleinair.evals.scale.pgvector",
        "searches of vectors in Postgres, exact and by HNSW, against FAISS's flat index",
    ),
}


def add(commands: Any) -> None:
    """Add the command; the options of a benchmark are read by its own parser."""
    scale = commands.add_parser(
        "scale",
        help="measure a cost against size",
        epilog="\n".join(f"  {name:<12} {line}" for name, (_, line) in MODULES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scale.add_argument("name", choices=MODULES, metavar="name", help="one of those below")
    scale.add_argument("options", nargs=argparse.REMAINDER, help="of the benchmark; `scale NAME --help`")
    scale.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    path, line = MODULES[options.name]
    benchmark = import_module(path)
    program = f"python -m pleinair.evals scale {options.name}"
    parser = argparse.ArgumentParser(prog=program, description=f"Measure {line}.")
    parser.add_argument("--json", type=Path, help="file for the figures")
    benchmark.add_options(parser)
    benchmark.run(parser.parse_args(options.options))


def write_figures(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write figures as JSON, with the command line that made them, unless the path is None."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        line = " ".join(["python -m pleinair.evals", *sys.argv[1:]])
        path.write_text(json.dumps({"command": line, **figures}, indent=1) + "\n", encoding="utf-8")
