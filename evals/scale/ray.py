"""Indexing by Ray Data on several nodes of this machine, against one process without Ray.

Each build begins with an empty home folder, and every process has one thread. All must write the same index.
The nodes share the cores of one machine, so this measures what coordination costs, not what machines add:
images a second from the first result to the last, and the seconds of the command as a whole.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pleinair.evals.scale.command import write_figures
from pleinair.tools.retrieval.manifest import load_manifest
from pleinair.tools.types import BadInput, ModelFault

_SIDE, _IN_TAR = 32, 5000
_STORE = 80 * 2**20  # bytes of shared memory a node
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray then uses 127.0.0.1
}
_PROGRAM = """
import contextlib, json, sys, time
from pleinair.app.index import bring_up_to_date
from pleinair.app.settings import load

shown, start = [], time.perf_counter()

@contextlib.contextmanager
def watch(title):
    def show(done, total):
        if title == "Indexing images":
            shown.append((time.perf_counter(), done))
    yield show

for _ in bring_up_to_date(load(sys.argv[1], json.loads(sys.argv[2])), watch):
    pass
seconds = time.perf_counter() - start
first = next(pair for pair in shown if pair[1])
last = next(pair for pair in shown if pair[1] == shown[-1][1])
print(json.dumps({"rate": (last[1] - first[1]) / (last[0] - first[0]), "seconds": seconds}))
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--images", type=int, default=10_000, help="of noise, 32 x 32 pixels, in tar files")
    parser.add_argument("--profile", default="pocket", help="whose encoder is used")
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 3], help="with an actor each")
    parser.add_argument("--repeat", type=int, default=2, help="of all, alternating; the best of each counts")


def run(options: argparse.Namespace) -> None:
    """Index in all ways, and print images a second and seconds; raise `ModelFault` if vectors differ."""
    if options.images < 1000 or min(options.nodes) < 1:
        raise BadInput("--images must be at least 1000, --nodes at least 1")
    figures: dict[int, list[dict[str, float]]] = {0: [], **{nodes: [] for nodes in options.nodes}}
    with tempfile.TemporaryDirectory() as place:
        library = _write_library(Path(place, "library"), options.images)
        vectors = set()
        for number in range(options.repeat):
            for nodes, values in figures.items():
                home = Path(place, f"{nodes}-{number}")
                with _cluster(nodes) as address:
                    values.append(_index(options.profile, library, home, address))
                (manifest,) = home.rglob("manifest.json")
                vectors.add(load_manifest(manifest.parent).vectors)  # named by their content
        if len(vectors) > 1:
            raise ModelFault("The nodes have other vectors than one process: the encoder varies.")
    best = {nodes: max(values, key=lambda value: value["rate"]) for nodes, values in figures.items()}
    for nodes, value in best.items():
        title = f"{nodes} nodes of Ray" if nodes else "one process"
        share = value["rate"] / best[0]["rate"]
        print(f"{title}: {value['rate']:.0f} images/s ({share:.2f} x), {value['seconds']:.0f} s in all")
    write_figures(options.json, {"images": options.images, "repeat": options.repeat, "nodes": figures})


def _index(profile: str, library: Path, home: Path, address: str) -> dict[str, float]:
    """Build an index in a process of its own; return its images a second, and seconds."""
    overrides = {"library.folder": str(library), "library.readers": ["file_names"], "cluster.ray": address}
    command = [sys.executable, "-c", _PROGRAM, profile, json.dumps(overrides)]
    environment = os.environ | _ENVIRONMENT | {"PLEINAIR_HOME": str(home)}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


@contextmanager
def _cluster(nodes: int) -> Iterator[str]:
    """Start a cluster of nodes on loopback, and yield its address; of no nodes it is empty."""
    if not nodes:
        yield ""
        return
    os.environ.update(_ENVIRONMENT)
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"object_store_memory": _STORE, "include_dashboard": False}
    head = {**options, "num_cpus": 0, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=_STORE)
        yield cluster.address
    finally:
        cluster.shutdown()


def _write_library(folder: Path, count: int) -> Path:
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(0)
    for start in range(0, count, _IN_TAR):
        with tarfile.open(folder / f"{start:08}.tar", "w") as tar:
            for number in range(start, min(start + _IN_TAR, count)):
                data = io.BytesIO()
                pixels = random.integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(data, "PNG", compress_level=0)
                info = tarfile.TarInfo(f"{number:08}.png")
                info.size = data.tell()
                data.seek(0)
                tar.addfile(info, data)
    return folder
