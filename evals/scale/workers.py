"""Worker processes on one queue whose units wait: a check of coordination, not of drawing.

Each unit is a whole run of the graph `direct`, with its row, lease, events and checkpoints, whose image a
server of this process sends after some seconds. So what is lost against linear growth is what the workers,
the queue and the database take. The runs are in SQLite, or in a Postgres database whose URL is given.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pleinair.app.api import enqueue, run_table
from pleinair.app.runs.row import Run
from pleinair.evals.scale.command import write_figures

TARGET = 0.9  # of linear
PROMPT = "a wren"
PROGRAM = "from pleinair.app.cli.main import console; console()"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--workers", type=int, default=8, help="processes, against one (8)")
    parser.add_argument("--units", type=int, default=4, help="runs for each worker (4)")
    parser.add_argument("--seconds", type=float, default=8.0, help="that a unit waits (8)")
    parser.add_argument("--database", default="", help="URL of an empty Postgres database; default: SQLite")


def run(options: argparse.Namespace) -> None:
    """Measure and print one worker and several."""
    with tempfile.TemporaryDirectory() as folder, _slow_server(options.seconds) as address:
        os.environ |= {
            "PLEINAIR_HOME": f"{folder}/home",
            "PLEINAIR_PATHS__OUT": f"{folder}/out",
            "PLEINAIR_CLUSTER__DATABASE": options.database,
        }
        seconds = {count: _measured(count, count * options.units, address) for count in (1, options.workers)}
    linear = seconds[1] / seconds[options.workers]
    ideal = options.units * options.seconds / seconds[options.workers]
    where = "Postgres" if options.database else "SQLite"
    sys.stdout.write(
        f"{options.workers} workers, {options.units} units of {options.seconds:.0f} s each, runs in {where}: "
        f"{100 * linear:.1f} % of linear growth from one worker (the target is {100 * TARGET:.0f} %), "
        f"{100 * ideal:.1f} % of the waiting alone\n"
    )
    write_figures(options.json, {"seconds": seconds, "linear": linear, "ideal": ideal, "database": where})


def _measured(workers: int, units: int, address: str) -> float:
    """Return the seconds of so many units, once each worker has executed one."""
    processes = [_worker() for _ in range(workers)]
    try:
        _await(_queued(workers, address))
        started = time.monotonic()
        _await(_queued(units, address))
        return time.monotonic() - started
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _worker() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, "worker"]
    output = subprocess.DEVNULL
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=output, stderr=output, env=environment)


def _queued(count: int, address: str) -> list[Run]:
    generator = {"backend": "openai_images", "model": "slow", "base_url": address, "slots": 0}
    overrides = {f"generator.{name}": value for name, value in generator.items()}
    runs = [
        enqueue(PROMPT, client="bench", graph="direct", seed=n, overrides=overrides) for n in range(count)
    ]
    return [run for group in runs for run in group]


def _await(runs: Sequence[Run]) -> None:
    """Wait until all runs have ended; raise `RuntimeError` unless each has its image."""
    table, ids = run_table(), [run.id for run in runs]
    with table:
        rows = table.get_some(ids)
        while not all(run.outcome_json for run in rows.values()):
            time.sleep(0.05)
            rows = table.get_some(ids)
    if faults := [run.outcome for run in rows.values() if not (run.outcome and run.outcome.best)]:
        raise RuntimeError(f"{len(faults)} runs have no image; the first: {faults[0]}")


@contextmanager
def _slow_server(seconds: float) -> Iterator[str]:
    """Serve an OpenAI-compatible API on loopback, whose images take so many seconds; yield its address."""
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((64, 64), 100).save(file, "PNG")
    image = {"created": 0, "data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": "slow", "object": "model"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            time.sleep(seconds)
            self._send(image)

        def _send(self, answer: dict[str, Any]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
