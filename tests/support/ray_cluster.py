"""A real Ray cluster of several nodes on loopback, in a child process whose nodes can be killed.

    with ray_cluster(nodes=2, cpus=1) as cluster:   # and the head, which runs no tasks
        ... cluster.address ...
        cluster.kill_node(0)

The nodes are those of `ray.cluster_utils.Cluster`: each has its own raylet, object store and workers. The
child process reads commands, so that no test process is connected to Ray.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import psutil
from support.processes import kill_all

ENVIRONMENT = {  # of the nodes, and of every process that connects to them
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every part uses 127.0.0.1
    "OMP_NUM_THREADS": "1",
}
_PROGRAM = """
import json, sys
from ray.cluster_utils import Cluster

options = json.loads(sys.argv[1])
health = {f"health_check_{name}_ms": 1000 for name in ("initial_delay", "period", "timeout")}
head = {
    "num_cpus": options["head_cpus"],
    "object_store_memory": options["store"],
    "include_dashboard": False,
    "node_ip_address": "127.0.0.1",
    "temp_dir": options["folder"],
    "_system_config": {**health, "health_check_failure_threshold": 3},
}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = []

def add():
    node = cluster.add_node(num_cpus=options["cpus"], object_store_memory=options["store"])
    nodes.append(node)
    return node.all_processes["raylet"][0].process.pid

def tell(**facts):
    print(json.dumps(facts), flush=True)

raylets = [add() for _ in range(options["nodes"])]
tell(address=cluster.address, raylets=raylets)
for line in sys.stdin:
    tell(raylet=add())
cluster.shutdown()
"""


@dataclass
class RayCluster:
    """A cluster that runs in a child process."""

    address: str  # 127.0.0.1:port of the head
    raylets: list[int]  # process ids of the nodes, without the head's
    process: subprocess.Popen[str]

    def kill_node(self, number: int) -> None:
        """Kill the raylet of a node with SIGKILL, with which its workers die."""
        os.kill(self.raylets[number], signal.SIGKILL)

    def add_node(self) -> None:
        """Add a node as the others."""
        cast(IO[str], self.process.stdin).write("add\n")
        cast(IO[str], self.process.stdin).flush()
        self.raylets.append(int(_answer(self.process)["raylet"]))


@contextmanager
def ray_cluster(nodes: int = 2, cpus: float = 1, head_cpus: float = 0) -> Iterator[RayCluster]:
    """Start a head and some nodes, about 25 s on a busy core and 1.1 GB; end all of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # a socket's path has 107 bytes at most
    (folder / "ray").mkdir()  # of the address file: Ray's test cluster does not make the folder
    options = {
        "nodes": nodes,
        "cpus": cpus,
        "head_cpus": head_cpus,
        "folder": str(folder),
        "store": 80 * 2**20,
    }
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(options)],
            env=os.environ | ENVIRONMENT | {"RAY_TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        facts = _answer(process, folder / "stderr")
        yield RayCluster(facts["address"], facts["raylets"], process)
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _answer(process: subprocess.Popen[str], errors: Path | None = None) -> dict[str, Any]:
    """Return the next line of the child as JSON; Ray prints others before it."""
    for line in cast(IO[str], process.stdout):
        if line.startswith("{"):
            return cast(dict[str, Any], json.loads(line))
    raise ChildProcessError(f"The cluster ended: {errors.read_text()[-2000:] if errors else ''}")


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the child with every process below it, by their ids."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.wait()
    kill_all(below, wait=10)
    for stream in (process.stdin, process.stdout):
        cast(IO[str], stream).close()
