"""Ray nodes are killed while workers execute a queue of whole runs, whose images are those of one process."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from support.machines import CLUSTER, PROCESS, PROGRAM, Machine
from support.postgres import PostgresServer
from support.ray_cluster import ENVIRONMENT, ray_cluster
from support.s3_server import BUCKET, s3_server

KILLS = int(os.environ.get("KILLS", "3"))
SEEDS = (1, 2)
QUEUE = """
import json, sys
from pleinair.app.api import enqueue
for number in range(int(sys.argv[1])):
    key = f"run {number}"
    enqueue("a hoopoe in the snow", client="test", seed=1 + number % 2, idempotency_key=key)
"""
ENDS = """
import json
from pleinair.app.api import run_table
ended = [(run, run.outcome.best) for run in run_table().newest(1000) if run.outcome]
print(json.dumps([[run.seed, run.status, best and best.picture.sha256] for run, best in ended]))
"""


def ends(machine: Machine) -> list[tuple[int, str, str]]:
    """Return seed, ending and image of each run that has ended."""
    return [
        (seed, ending, image) for seed, ending, image in json.loads(machine.call(sys.executable, "-c", ENDS))
    ]


def test_runs_survive_the_deaths_of_nodes(tmp_path: Path) -> None:
    alone = Machine(tmp_path / "alone", PROCESS, {})
    alone.call(sys.executable, "-c", QUEUE, str(len(SEEDS)))
    alone.call(*PROGRAM, "worker", "--idle", "1")
    wanted = set(ends(alone))
    rng, runs = random.Random(int(os.environ.get("SEED", "1"))), 6 * KILLS
    with ExitStack() as stack:
        server, storage = stack.enter_context(PostgresServer()), stack.enter_context(s3_server())
        nodes = stack.enter_context(ray_cluster(nodes=2, cpus=1))
        settings = CLUSTER.format(database=server.fresh_database(), bucket=BUCKET, ray=nodes.address)
        machine = Machine(tmp_path / "works", settings, storage.environment | ENVIRONMENT)
        machine.call(*PROGRAM, "cluster", "deploy")
        machine.call(sys.executable, "-c", QUEUE, str(runs))
        stack.enter_context(machine.worker())
        for number in range(KILLS):
            time.sleep(rng.uniform(1, 6))
            nodes.kill_node(number)
            nodes.add_node()
        end = time.monotonic() + 900
        while len(ended := ends(machine)) < runs and time.monotonic() < end:
            time.sleep(2)
    assert len(wanted) == len(SEEDS) and len(ended) == runs
    assert set(ended) == wanted
