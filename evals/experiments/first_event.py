"""Measure when the first event of a run reaches a page, against a Python callback.

Two times, each from the same start on both ways: from the request, and from the event's own time in the log.
The page is a client of the run's feed; a browser adds the morph of the page. Both processes are warm, and the
two ways alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from httpx2 import AsyncClient

from pleinair.app.runs.events import Event, read
from pleinair.evals.experiments.serving import PROMPT, Server, http_client, messages, serving

RESAMPLES = 9_999
TARGET = 3.0
GRAPH = "direct"
NOT_BEGUN = "not-begun"  # class of what a page shows of a run in the queue
UNMEASURED = 2  # first runs, for imports, models and caches


class Times(NamedTuple):
    """Seconds until the first event arrived."""

    from_request: float
    from_event: float


def measure(runs: int) -> tuple[list[Times], list[Times]]:
    """Return the times of the callback and of the page."""
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        os.environ |= {"PLEINAIR_HOME": f"{folder}/home", "PLEINAIR_PATHS__OUT": f"{folder}/out"}
        return asyncio.run(_alternate(server, runs))


async def _alternate(server: Server, runs: int) -> tuple[list[Times], list[Times]]:
    callback, page = [], []
    async with http_client(server) as http:
        for seed in range(runs + UNMEASURED):
            callback.append(_callback(seed))
            page.append(Times(await _from_request(server, http, seed), await _from_event(server, http, seed)))
    return callback[UNMEASURED:], page[UNMEASURED:]


def _callback(seed: int) -> Times:
    """Run in this process."""
    from pleinair.app.api import draw

    arrivals: list[tuple[float, Event]] = []
    started = time.time()
    draw(PROMPT, seed=seed, graph=GRAPH, on_event=lambda event: arrivals.append((time.time(), event)))
    arrival, event = arrivals[0]
    return Times(arrival - started, arrival - event.at)


async def _from_request(server: Server, http: AsyncClient, seed: int) -> float:
    """Request a run, then open its page's feed."""
    started = time.time()
    return await _arrival(http, await _request(http, seed)) - started


async def _from_event(server: Server, http: AsyncClient, seed: int) -> float:
    """Open the feed of a run that waits in the queue for another one."""
    await _request(http, seed)
    run_id = await _request(http, seed)
    arrival = await _arrival(http, run_id)
    return arrival - read(server.places.events(run_id))[0].at


async def _request(http: AsyncClient, seed: int) -> str:
    answer = await http.post("/runs", json={"prompt": PROMPT, "graph": GRAPH, "seed": seed})
    return str(answer.raise_for_status().json()["run"])


async def _arrival(http: AsyncClient, run_id: str) -> float:
    """Return when the first message came that shows the run as begun; read on to the end."""
    received = [(arrival, fields.get("data", "")) async for arrival, fields in messages(http, run_id)]
    return next(arrival for arrival, page in received if PROMPT in page and NOT_BEGUN not in page)


def _ratio_of_medians(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of the medians and its 95 % interval, by a percentile bootstrap over the pairs."""
    pairs = np.array([above, below])
    picks = np.random.default_rng(0).integers(0, pairs.shape[1], (RESAMPLES, pairs.shape[1]))
    medians = np.median(pairs[:, picks], axis=2)
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return statistics.median(above) / statistics.median(below), float(low), float(high)


def add(commands: Any) -> None:
    """Add the command and its options."""
    first = commands.add_parser("first-event", help="first event in a page, against a Python callback")
    first.add_argument("--runs", type=int, default=30, help="runs on each way (30)")
    first.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    callback, page = measure(options.runs)
    for name in Times._fields:
        below, above = ([getattr(times, name) for times in way] for way in (callback, page))
        ratio, low, high = _ratio_of_medians(above, below)
        sys.stdout.write(
            f"{name.replace('_', ' the ')}: page / callback = {ratio:.2f} [{low:.2f}, {high:.2f}] "
            f"(medians {1000 * statistics.median(above):.1f} and {1000 * statistics.median(below):.1f} ms, "
            f"n = {options.runs}; the target is {TARGET:.0f})\n"
        )
