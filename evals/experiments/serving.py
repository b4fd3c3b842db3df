"""Measure the web server under load: 1,000 clients on one worker, memory over many runs, many open pages.

A real server and worker are started in a home of their own; the models are the pocket ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil

from pleinair.app.paths import Paths
from pleinair.app.runs.store import Runs
from pleinair.tools.types import PleinairError

PROMPT = "a hoopoe in the snow"
MIB = 2**20
GREEDY = f"{0:032x}"  # client that sends many requests


@dataclass(frozen=True)
class Server:
    """Server of a measurement."""

    process: psutil.Process
    address: str
    places: Paths

    @property
    def runs(self) -> Runs:
        """The server's run table."""
        return Runs(self.places.table)

    @property
    def worker(self) -> psutil.Process:
        """The worker process."""
        return next(child for child in self.process.children() if "worker" in " ".join(child.cmdline()))

    def request(self, **fields: Any) -> str:
        """Request a run and return its id."""
        answer = httpx.post(f"{self.address}/runs", json={"prompt": PROMPT, **fields}, timeout=60)
        answer.raise_for_status()
        return str(answer.json()["run"])

    def await_end(self, *run_ids: str) -> None:
        """Wait until runs have ended."""
        with self.runs as runs:
            while any(run.outcome is None for run in runs.get_some(run_ids).values()):
                time.sleep(0.05)


@contextmanager
def serving(queue: int = 64) -> Iterator[Server]:
    """Run a server with one worker in a temporary home, for the block."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PLEINAIR_HOME": f"{folder}/home", "PLEINAIR_PATHS__OUT": f"{folder}/out"}
        command = [
            sys.executable,
            "-m",
            "pleinair.app.cli.main",
            "serve",
            "--port",
            "0",
            "--queue",
            str(queue),
        ]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            address = next((word for word in line.split() if word.startswith("http")), "")
            if not address:
                raise PleinairError("the server did not start")
            yield Server(psutil.Process(process.pid), address, Paths(Path(folder, "home")))
        finally:
            process.terminate()
            process.communicate()


def http_client(server: Server) -> httpx.AsyncClient:
    """Return a client with any number of connections."""
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=server.address, timeout=300, limits=limits, verify=False)


async def messages(http: httpx.AsyncClient, run_id: str) -> AsyncGenerator[tuple[float, dict[str, str]]]:
    """Yield the messages of a run's feed, as fields, each with the time of its arrival."""
    async with http.stream("GET", f"/runs/{run_id}/feed") as response:
        response.raise_for_status()
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if not line and fields:
                yield time.time(), fields
                fields = {}
            elif name:
                fields[name] = f"{fields[name]}\n{value}" if name in fields else value


@dataclass(frozen=True)
class Answer:
    """Answer to one request of a crowd."""

    client: str
    status: int
    retry_after: str
    run: str


async def _ask(http: httpx.AsyncClient, client: str) -> Answer:
    headers = {"cookie": f"pleinair_client={client}"}
    answer = await http.post("/runs", json={"prompt": PROMPT, "graph": "direct"}, headers=headers)
    run = answer.json().get("run", "")
    return Answer(client, answer.status_code, answer.headers.get("retry-after", ""), run)


async def _crowd(server: Server, clients: int, greedy: int) -> list[Answer]:
    """Return the answers to `greedy` requests of one client, then to one of each other client at once."""
    async with http_client(server) as http:
        first = [await _ask(http, GREEDY) for _ in range(greedy)]
        return first + await asyncio.gather(*(_ask(http, f"{n:032x}") for n in range(1, clients)))


def measure_crowd(clients: int, greedy: int, queue: int) -> dict[str, Any]:
    """Return how a crowd was answered, and what became of the accepted requests."""
    with serving(queue) as server:
        server.await_end(server.request(graph="direct"))  # models are loaded
        before = {run.id for run in server.runs.newest(10)}
        started = time.monotonic()
        answers = asyncio.run(_crowd(server, clients, greedy))
        answered = time.monotonic() - started
        accepted = [answer for answer in answers if answer.status == 202]
        server.await_end(*(answer.run for answer in accepted))
        seconds = time.monotonic() - started
        rows = [run for run in server.runs.newest(10 * clients) if run.id not in before]
    singles = [run for run in rows if run.client != GREEDY]
    waited = min(run.created for run in singles), max(run.updated for run in singles)
    meanwhile = [run for run in rows if run.client == GREEDY and waited[0] < run.updated < waited[1]]
    return {
        "statuses": dict(Counter(answer.status for answer in answers)),
        "accepted": len(accepted),
        "rows": len(rows),
        "finished": sum(run.status == "unchecked" for run in rows),
        "refused without Retry-After": sum(a.status == 429 and int(a.retry_after or 0) < 1 for a in answers),
        "single requests accepted": len(singles),
        "runs of the greedy client while one of those waited": len(meanwhile),
        "seconds until all were answered": round(answered, 1),
        "seconds until all accepted runs had ended": round(seconds, 1),
    }


def _measure_memory(runs: int, first: int) -> dict[str, Any]:
    """Return the resident memory of server and worker, in MiB, after the first runs and each tenth of all."""
    sizes: dict[str, dict[int, float]] = {"server": {}, "worker": {}}
    with serving() as server:
        for number in range(1, runs + 1):
            asyncio.run(_follow(server, server.request(graph="pleinair" if number % 4 == 0 else "direct")))
            if number == first or number % max(runs // 10, 1) == 0:
                for name, process in (("server", server.process), ("worker", server.worker)):
                    sizes[name][number] = round(process.memory_info().rss / MIB, 1)
    return sizes


async def _follow(server: Server, run_id: str, pages: int = 1) -> int:
    """Read a run's feed to its end, as open pages do, and return the number of messages."""
    async with http_client(server) as http:

        async def follow() -> int:
            return sum([1 async for _ in messages(http, run_id)])

        return sum(await asyncio.gather(*(follow() for _ in range(pages))))


def _measure_pages(counts: tuple[int, ...]) -> dict[int, dict[str, float]]:
    """Return the server's CPU seconds during one run with so many open pages, and the run's seconds."""
    results = {}
    with serving() as server:
        server.await_end(server.request(seed=1))
        for count in counts:
            before, started = _cpu(server.process), time.monotonic()
            run_id = server.request(seed=2)
            received = asyncio.run(_follow(server, run_id, count))
            server.await_end(run_id)
            results[count] = {
                "CPU seconds of the server": round(_cpu(server.process) - before, 2),
                "seconds of the run": round(time.monotonic() - started, 2),
                "messages a page": round(received / max(count, 1), 1),
            }
    return results


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def add(commands: Any) -> None:
    """Add the commands and their options."""
    load = commands.add_parser("load", help="1,000 clients on one worker", description=__doc__)
    load.add_argument("--clients", type=int, default=1000, help="clients that ask at once (1000)")
    load.add_argument("--greedy", type=int, default=50, help="requests of one client before the others (50)")
    load.add_argument("--queue", type=int, default=64, help="runs that may wait (64)")
    load.set_defaults(run=_printed(lambda o: measure_crowd(o.clients, o.greedy, o.queue)))
    memory = commands.add_parser("memory", help="memory of server and worker over many runs")
    memory.add_argument("--runs", type=int, default=200, help="runs, one after the other (200)")
    memory.add_argument("--first", type=int, default=20, help="runs before the first measurement (20)")
    memory.set_defaults(run=_printed(lambda o: _measure_memory(o.runs, o.first)))
    pages = commands.add_parser("pages", help="CPU of the server with many open pages")
    pages.add_argument("--counts", type=int, nargs="+", default=[0, 1, 100], help="open pages (0 1 100)")
    pages.set_defaults(run=_printed(lambda o: _measure_pages(tuple(o.counts))))


def _printed(measure: Callable[[argparse.Namespace], dict[Any, Any]]) -> Callable[[argparse.Namespace], None]:
    def run(options: argparse.Namespace) -> None:
        for name, value in measure(options).items():
            sys.stdout.write(f"{name}: {value}\n")

    return run
