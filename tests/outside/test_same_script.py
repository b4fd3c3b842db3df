"""The same script in one process, on one machine with workers, and on a cluster: only the settings change."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.machines import CLUSTER, MACHINE, PROCESS, PROGRAM, Machine
from support.postgres import PostgresServer
from support.ray_cluster import ENVIRONMENT, ray_cluster
from support.s3_server import BUCKET, s3_server

SCRIPT = Path(__file__).parents[1] / "support" / "same_script.py"


def script(machine: Machine) -> dict[str, Any]:
    """Run the script and return what it has printed."""
    return dict(json.loads(machine.call(sys.executable, str(SCRIPT)).splitlines()[-1]))


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return script(Machine(tmp_path_factory.mktemp("process"), PROCESS, {}))


def test_in_one_process(in_process: dict[str, Any]) -> None:
    assert in_process["references"] and in_process["file"] and in_process["last event"] == "ended"


def test_on_one_machine_with_workers(in_process: dict[str, Any], tmp_path: Path) -> None:
    machine = Machine(tmp_path, MACHINE, {})
    with machine.worker():
        assert script(machine) == in_process


def test_on_a_cluster(in_process: dict[str, Any], tmp_path: Path) -> None:
    """A machine asks, another one works, Ray's nodes draw and embed; runs are in Postgres, images on S3."""
    with ExitStack() as stack:
        server, storage = stack.enter_context(PostgresServer()), stack.enter_context(s3_server())
        nodes = stack.enter_context(ray_cluster(nodes=2, cpus=1))
        settings = CLUSTER.format(database=server.fresh_database(), bucket=BUCKET, ray=nodes.address)
        environment = storage.environment | ENVIRONMENT
        (tmp_path / "asks").mkdir()
        (tmp_path / "works").mkdir()
        asks = Machine(tmp_path / "asks", settings, environment)
        works = Machine(tmp_path / "works", settings, environment)
        works.call(*PROGRAM, "cluster", "deploy")
        with works.worker():
            assert script(asks) == in_process
        assert not list((tmp_path / "asks" / "home").rglob("*.png"))
        assert not list((tmp_path / "works").rglob("out/*")) and list(
            (tmp_path / "asks" / "out").glob("*.png")
        )
