"""Images a second of Ray Serve with one replica and with two, against the same generator in this process.

Without `--address` the cluster is a head and two nodes with room for one replica each, all on this machine:
then the figures tell what Ray Serve costs and that two nodes work at the same time, not what machines gain.
Each turn measures all three, after one image of each replica that does not count; a process has one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from pleinair.app.engines import build_generator
from pleinair.app.settings import load
from pleinair.evals.scale.command import write_figures
from pleinair.tools.callbacks import no_callback
from pleinair.tools.types import GenerateRequest, Generator

APP = "pleinair-benchmark"
REPLICAS = 1, 2
ROOM = 0.6  # CPUs of a replica, where a node has one
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--address", default="", help="host:port of a cluster; without it one is started here"
    )
    parser.add_argument("--images", type=int, default=32, help="images of a measurement (32)")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each (3)")


def run(options: argparse.Namespace) -> None:
    """Measure and print the three."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the nodes' processes too
    import torch

    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {}
    with _cluster(options.address) as address:
        for turn in range(options.turns):
            for name, generator in _ways(address):
                first = 1000 * turn
                rates.setdefault(name, []).append(_rate(generator, first, options.images))
    for name, values in rates.items():
        ratio = statistics.median(values) / statistics.median(rates["this process"])
        sys.stdout.write(
            f"{name}: {statistics.median(values):.2f} images a second (median), {min(values):.2f} to "
            f"{max(values):.2f}, {ratio:.2f} × this process\n"
        )
    write_figures(options.json, {"images": options.images, "rates": rates})


def _ways(address: str) -> Iterator[tuple[str, Generator]]:
    """Yield the generator of this process, then that of the cluster with each number of replicas."""
    from pleinair.tools.cluster.deployments import Application, deploy, remove
    from pleinair.tools.cluster.ray_serve import Part, RayGenerator, ReplicaOptions

    settings = load("pocket")
    choice = settings.generator
    part = Part.of("generator", choice.backend, choice.arguments)
    yield "this process", build_generator(settings)
    for count in REPLICAS:
        options = ReplicaOptions(app=APP, min_replicas=count, max_replicas=count, num_cpus=ROOM)
        deploy(address, [Application(APP, part, options)], no_callback, 300)
        yield (
            f"{count} replica{'s' * (count > 1)}",
            RayGenerator(choice.backend, choice.arguments, address, APP),
        )
    remove(address, [APP], no_callback)


def _rate(generator: Generator, first: int, count: int) -> float:
    """Return the images a second of as many requests at once as two replicas have and two that wait."""

    def draw(seed: int) -> None:
        request = GenerateRequest(
            prompt=f"a hoopoe, number {seed}",
            height=96,
            width=96,
            num_inference_steps=8,
            guidance_scale=3.0,
            seed=seed,
        )
        generator.generate(request, [], no_callback)

    with ThreadPoolExecutor(4) as pool:
        _all(pool, draw, first, 8)
        started = perf_counter()
        _all(pool, draw, first + 8, count)
        return count / (perf_counter() - started)


def _all(pool: ThreadPoolExecutor, draw: Callable[[int], None], first: int, count: int) -> None:
    for _ in pool.map(draw, range(first, first + count)):
        pass


@contextmanager
def _cluster(address: str) -> Iterator[str]:
    """Yield an address: the given one, or that of a head and two nodes on this machine, ended afterwards."""
    if address:
        yield address
        return
    os.environ.update(_LOOPBACK)
    from ray.cluster_utils import Cluster

    store: dict[str, Any] = {"object_store_memory": 80 * 2**20}
    head = store | {"num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **store)
        yield str(cluster.address)
    finally:
        from pleinair.tools.cluster.ray_link import disconnect

        disconnect()
        cluster.shutdown()
