"""`pleinair serve` and `pleinair worker`: start, stop with open streams, refusals."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from typer.testing import CliRunner

from pleinair.app.api import enqueue, home, run_table
from pleinair.app.cli.main import app
from pleinair.app.runs.worker import work
from pleinair.app.server.serve import check
from pleinair.app.server.site import Options
from pleinair.tools.types import BadInput

PROMPT = "first thing and second thing"
TOKEN = "a-secret-of-a-test"


@contextmanager
def server(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start `pleinair serve` on a free port; yield the process and the address that it printed."""
    command = [sys.executable, "-m", "pleinair.app.cli.main", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield process, process.stdout.readline().split()[3]
    finally:
        process.kill()
        process.communicate()


def test_it_stops_with_an_open_stream_and_its_run_goes_on(place: Path) -> None:
    (run,) = enqueue(PROMPT, client="a", overrides={"generator.pause": 0.2})
    with server(PLEINAIR_SERVE_TOKEN=TOKEN) as (process, address):
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.stream("GET", f"{address}/runs/{run.id}/feed", headers=headers, timeout=3000) as stream:
            assert stream.status_code == 200
            while run_table().get(run.id).status == "queued":
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "1 run will go on at the next start" in errors
    assert "Traceback" not in errors and TOKEN not in output + errors
    row = run_table().get(run.id)
    assert (row.status, row.owner, row.deaths) == ("queued", None, 0)
    work(run_table(), home(), threading.Event(), idle=0.2)
    assert run_table().get(run.id).outcome


def test_a_home_that_cannot_be_used_is_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").touch()
    monkeypatch.setenv("PLEINAIR_HOME", str(place / "file"))
    result = CliRunner().invoke(app, ["serve", "--port", "0"])
    assert (result.exit_code, "Cannot write" in result.output) == (5, True), result.output


def test_an_open_address_needs_a_token(place: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "PLEINAIR_SERVE_TOKEN" in result.stderr and result.stdout == ""


def test_a_port_in_use_is_an_error(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--port", str(port)])
    assert result.exit_code == 2
    assert f"port {port}" in result.stderr and "--port" in result.stderr


@pytest.mark.parametrize("host", ["192.0.2.250", "no such host", "::ffff:300"])
def test_an_address_that_is_not_here_is_an_error(place: Path, host: str) -> None:
    result = CliRunner(env={"PLEINAIR_SERVE_TOKEN": TOKEN}).invoke(app, ["serve", "--host", host])
    assert result.exit_code == 2
    assert host in result.stderr and TOKEN not in result.output


@pytest.mark.parametrize(
    "options",
    [
        Options(host="0.0.0.0"), Options(host="::"), Options(host="images.example.org"), Options(host="[::]"),
        Options(token="short"), Options(token="with a space"), Options(token="umläute-umläute"),
        Options(names=("https://images.example.org",)), Options(names=("",)), Options(names=("a b",)),
        Options(names=("user@example.org",)), Options(names=("example.org/path",)), Options(names=("a:b",)),
    ],
)  # fmt: skip
def test_unsafe_options_are_refused(options: Options) -> None:
    with pytest.raises(BadInput):
        check(options)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.53"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    check(Options(host=host, names=("images.example.org", "images.example.org:8443", "[2001:db8::1]")))


def test_a_worker_executes_the_queue_and_exits_when_idle(place: Path) -> None:
    runs = [enqueue(PROMPT, client=client, graph="direct")[0] for client in "ab"]
    result = CliRunner().invoke(app, ["worker", "--idle", "0.2"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{run.id}  unchecked" for run in runs]


def test_a_worker_that_is_stopped_releases_its_run(place: Path) -> None:
    (run,) = enqueue(PROMPT, client="a", overrides={"generator.pause": 0.2})
    command = [sys.executable, "-m", "pleinair.app.cli.main", "worker"]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True)
    try:
        while run_table().get(run.id).status == "queued":
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    row = run_table().get(run.id)
    assert (process.returncode, row.status, row.owner, row.deaths) == (0, "queued", None, 0), errors
