"""Web servers in processes of their own, for tests and measurements."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest

WAIT = 300.0  # seconds until what a busy machine does late is taken for something that hangs
SERVE = """
import json, sys
from pleinair.app.api import home
from pleinair.app.server.serve import serve
from pleinair.app.server.site import Options
serve(Options(**json.loads(sys.argv[1])), home())
"""


@dataclass
class Server:
    """Server, its address and its workers."""

    process: subprocess.Popen[bytes]
    address: str

    @property
    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return [
            child
            for child in psutil.Process(self.process.pid).children()
            if "pleinair.app.runs.worker" in child.cmdline()
        ]

    def post(self, prompt: str, **fields: Any) -> str:
        """Request a run and return its id."""
        answer = httpx.post(f"{self.address}/runs", json={"prompt": prompt, **fields}, timeout=WAIT)
        answer.raise_for_status()
        return str(answer.json()["run"])

    def messages(self, run_id: str, last: str = "") -> Iterator[dict[str, str]]:
        """Yield the messages of a run's feed, each as its fields."""
        headers = {"last-event-id": last} if last else {}
        url = f"{self.address}/runs/{run_id}/feed"
        with httpx.stream("GET", url, headers=headers, timeout=WAIT) as response:
            response.raise_for_status()
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if not line and fields:
                    yield fields
                    fields = {}
                elif name:
                    fields[name] = f"{fields[name]}\n{value}" if name in fields else value

    def kill(self) -> None:
        """Kill the server's process, not its workers."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask the server to stop, and wait for it."""
        self.process.terminate()
        self.process.wait(WAIT)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def own_folders(folder: Path) -> Iterator[Path]:
    """Set the home, out and configuration folders for the block, here and in processes that start in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLEINAIR_HOME", str(folder / "home"))
        patch.setenv("PLEINAIR_PATHS__OUT", str(folder / "out"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield folder


@contextmanager
def serving(workers: int = 1, queue: int = 64, token: str = "") -> Iterator[Server]:
    """Run a server for the block, with the environment of this process."""
    port = free_port()
    options = {"port": port, "workers": workers, "queue": queue, "token": token}
    command = [sys.executable, "-c", SERVE, json.dumps(options)]
    process = subprocess.Popen(command, env=os.environ)
    try:
        _await_answer(port, process)
        yield Server(process, f"http://127.0.0.1:{port}")
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(WAIT)


def _await_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server ended with status {process.returncode}")
