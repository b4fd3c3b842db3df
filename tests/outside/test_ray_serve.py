"""Generators and encoders on Ray Serve: a real cluster of three nodes; replicas and a node are killed."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import psutil
import pytest
from support.ray_calls import ANSWER
from support.ray_cluster import ENVIRONMENT, RayCluster, ray_cluster
from support.source_tree import ROOT

PLEINAIR = [sys.executable, "-c", "from pleinair.app.cli.main import console; console()"]
CALLS = [sys.executable, "-m", "support.ray_calls"]
SERVED = {
    "PLEINAIR_RAY_SERVE__GENERATOR__MIN_REPLICAS": "2",
    "PLEINAIR_RAY_SERVE__GENERATOR__MAX_REPLICAS": "2",
    "PLEINAIR_RAY_SERVE__ENCODER__NUM_CPUS": "0.5",
    "PLEINAIR_RAY_SERVE__ENCODER__BATCH": "4",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster that answers only those who have its token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with ray_cluster(nodes=2, cpus=2) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def environment(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a machine whose settings have generator and encoder on the cluster, deployed."""
    environment = environment_of(cluster, tmp_path_factory.mktemp("home")) | SERVED
    deployed = pleinair(environment, "cluster", "deploy", "--wait", "120")
    assert deployed.returncode == 0, deployed.stderr
    assert "pleinair-generator: RUNNING, 2 wanted, 2 running" in deployed.stdout
    assert "3 nodes" in deployed.stdout
    return environment


def environment_of(cluster: RayCluster, home: Path) -> dict[str, str]:
    return (
        os.environ
        | ENVIRONMENT
        | {
            "PLEINAIR_HOME": str(home),
            "PLEINAIR_CLUSTER__RAY": cluster.address,
            "PLEINAIR_PATHS__OUT": str(home / "out"),
            "PYTHONPATH": str(ROOT / "tests"),
        }
    )


def pleinair(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PLEINAIR, *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def start(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*CALLS, *words], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def answer_of(process: subprocess.Popen[str]) -> Any:
    """Return what a program of `ray_calls` found."""
    try:
        output, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 0
    (answer,) = [line for line in output.splitlines() if line.startswith(ANSWER)]
    return json.loads(answer.removeprefix(ANSWER))


def replicas(environment: dict[str, str]) -> list[int]:
    """Return the process ids of the generator's replicas."""
    state = json.loads(pleinair(environment, "cluster", "status", "--json").stdout)
    (generator,) = [app for app in state["applications"] if app["name"] == "pleinair-generator"]
    return [replica["pid"] for replica in generator["replicas"] if replica["state"] == "RUNNING"]


def local(environment: dict[str, str], home: Path) -> dict[str, str]:
    """Return the environment of a machine that holds the models itself."""
    rest = {name: value for name, value in environment.items() if name not in SERVED}
    return rest | {"PLEINAIR_HOME": str(home), "PLEINAIR_PATHS__OUT": str(home / "out")}


def test_images_and_vectors_are_those_of_this_process_and_a_stop_ends_an_image(
    environment: dict[str, str],
) -> None:
    found = answer_of(start(environment, "same"))
    errors = found.pop("errors")
    assert found.pop("steps") == [[done, 8] for done in range(9)]
    assert found.pop("previews") > 0
    assert found.pop("next") < 60  # of an image that waits for no other one of 1000 steps
    assert found == dict.fromkeys(found, True)
    assert [errors[name][0] for name in ("stop", "late", "wrong size")] == [
        "Cancelled",
        "OutOfTime",
        "BadInput",
    ]
    assert "reference_size = 48, the settings have 16" in errors["other arguments"][1]
    assert "has no application `nothing`" in errors["no application"][1]
    assert "pleinair cluster deploy" in errors["no application"][1]


def test_a_whole_run_ends_as_that_of_one_process(environment: dict[str, str], tmp_path: Path) -> None:
    there, here = start(environment, "run"), start(local(environment, tmp_path), "run")
    served = answer_of(there)
    assert served == answer_of(here)
    assert served["images"]


def test_doctor_asks_the_replicas(environment: dict[str, str]) -> None:
    answer = pleinair(environment, "doctor")
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.count("on a replica of `pleinair-") == 2


def test_calls_of_two_processes_are_answered_when_a_replica_and_a_node_are_killed(
    environment: dict[str, str], cluster: RayCluster, tmp_path: Path
) -> None:
    here = start(local(environment, tmp_path), "images", "0", "16")
    first, second = replicas(environment)
    node = psutil.Process(second).ppid()
    assert node in cluster.raylets
    expected = answer_of(here)
    callers = [start(environment, "images", number, "8") for number in ("0", "8")]
    for caller in callers:
        assert cast(IO[str], caller.stdout).readline() == "ready\n"
    time.sleep(0.5)
    os.kill(first, signal.SIGKILL)
    time.sleep(1)
    cluster.kill_node(cluster.raylets.index(node))
    assert [digest for caller in callers for digest in answer_of(caller)] == expected


def test_strangers_and_too_large_replicas_are_refused_and_applications_can_be_removed(
    environment: dict[str, str],
) -> None:
    greedy = environment | {"PLEINAIR_RAY_SERVE__GENERATOR__NUM_GPUS": "1"}
    strange = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH_")}
    stranger = pleinair(strange | {"HOME": environment["PLEINAIR_HOME"]}, "cluster", "status")
    assert stranger.returncode == 2 and "unauthenticated" in stranger.stderr
    refused = pleinair(greedy, "cluster", "deploy")
    assert refused.returncode == 2
    assert "num_gpus = 1, for which no node has room" in " ".join(refused.stderr.split())
    error, text = answer_of(start(environment, "removed"))
    assert error == "Unavailable" and "has no application `pleinair-generator`" in text
    removed = pleinair(environment, "cluster", "remove")
    assert removed.returncode == 0
    assert "removed: pleinair-encoder" in removed.stdout
    assert "Nothing is deployed" in pleinair(environment, "cluster", "status").stdout
