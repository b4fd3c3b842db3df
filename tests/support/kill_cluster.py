"""Kill workers, the database and its connections in the middle of runs: `python kill_cluster.py KILLS SEED`.

Three workers execute a queue of runs whose table, events and checkpoints are in Postgres. This process never
connects to the database itself, since it forks. It prints its observations as JSON for the test to check.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from support.kill_runs import files, fork, in_child_with_result, without_seconds
from support.postgres import PostgresServer

from pleinair.app.api import enqueue, home, run_table
from pleinair.app.runs import lease, store
from pleinair.app.runs.events import Ended, payloads, read
from pleinair.app.runs.runner import MOST_DEATHS
from pleinair.app.runs.store import Finished
from pleinair.app.runs.tables import OPEN
from pleinair.app.runs.worker import work
from pleinair.tools.storage.postgres import DatabaseAway

WORKERS = 3
QUEUED = 5  # runs that wait or are at work
LEASE = 2.0  # seconds, in place of 60
KINDS: list[dict[str, Any]] = [{}, {"mllm.satisfied": False, "budget.attempts": 3}]  # settings of runs
WEIGHTS = {"worker": 40, "server": 20, "connections": 20, "suspension": 10}


def patiently(action: Callable[[], Any]) -> Any:
    """Return what an action returns, tried again while a process that has just begun finds no database."""
    end = time.monotonic() + 60
    while True:
        try:
            return action()
        except DatabaseAway:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Workers:
    """Worker processes: forks of this one, started again when they end."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def keep(self) -> None:
        """Start those that are missing."""
        self.pids = [pid for pid in self.pids if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        while len(self.pids) < WORKERS:
            self.pids.append(fork(lambda: work(run_table(), home(), threading.Event())))

    def end(self) -> None:
        """Kill all."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.pids.clear()


def add(number: int, seed: int) -> str:
    """Queue a run of the kind of its number, once however often it is tried, and return its id."""
    kind, key = KINDS[number % len(KINDS)], f"run {number}"

    def queue() -> str:
        runs = enqueue("two things", client="test", seed=seed, overrides=kind, idempotency_key=key)
        return runs[0].id

    return str(patiently(queue))


def unfinished() -> int:
    """Return how many runs have not ended; one whose processes died too often is handed over again."""
    table = run_table()
    for run in table.newest(1000):
        if run.status == "failed" and run.deaths >= MOST_DEATHS:
            with suppress(Finished):
                table.hand_over(run.id, "test", reopen=True)
    return sum(run.status in OPEN for run in table.newest(1000))


def remains(run_id: str) -> dict[str, Any]:
    """Return everything of a run that must not depend on kills."""
    run, events = run_table().get(run_id), read(home().events(run_id))
    ends = payloads(events, Ended)
    return {
        "status": run.status,
        "outcome": without_seconds(json.loads(run.outcome_json or "null")),
        "pictures": files(home().run(run_id) / "pictures"),
        "log": [event.seq for event in events] == list(range(len(events))),
        "attempts": without_seconds([attempt.model_dump(mode="json") for attempt in ends[-1].attempts]),
    }


def disturb(kind: str, server: PostgresServer, workers: Workers, rng: random.Random) -> None:
    """Kill or suspend something."""
    pid = rng.choice(workers.pids)
    if kind == "worker":
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        workers.pids.remove(pid)
    elif kind == "server":
        server.kill()
        time.sleep(rng.uniform(0, 0.5))
        server.start()
    elif kind == "connections":
        server.terminate_backends()
    else:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.2 * LEASE)  # so that another worker takes over
        os.kill(pid, signal.SIGCONT)


def wait_until_done(workers: Workers, seconds: float) -> int:
    """Wait for the end of all runs; return how many have not ended by then."""
    end = time.monotonic() + seconds
    while (left := in_child_with_result(lambda: patiently(unfinished))) and time.monotonic() < end:
        workers.keep()
        time.sleep(0.5)
    return int(left)


def experiment(kills: int, seed: int) -> dict[str, Any]:
    """Disturb a queue until there were enough kills; compare each run with an undisturbed one."""
    rng, workers, done = random.Random(seed), Workers(), Counter[str]()
    with PostgresServer() as server:
        os.environ["PLEINAIR_CLUSTER__DATABASE"] = server.fresh_database()
        try:
            calm_ids = [in_child_with_result(partial(add, n, seed)) for n in range(len(KINDS))]
            workers.keep()
            assert not wait_until_done(workers, 300)
            calm = [in_child_with_result(partial(remains, id)) for id in calm_ids]
            ids: dict[int, str] = {}
            while done.total() < kills:
                workers.keep()
                left = in_child_with_result(lambda: patiently(unfinished))
                numbers = [len(KINDS) + len(ids) + more for more in range(QUEUED - left)]
                adding = [(number, _begin_adding(number, seed)) for number in numbers]
                time.sleep(rng.uniform(0, 0.6))
                kind = rng.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
                disturb(kind, server, workers, rng)
                done[kind] += 1
                ids |= {number: result() for number, result in adding}
            left = wait_until_done(workers, 600)
            wrong = [
                {"run": id, "wanted": calm[number % len(KINDS)], "got": after}
                for number, id in ids.items()
                if (after := in_child_with_result(partial(remains, id))) != calm[number % len(KINDS)]
            ]
            rows = in_child_with_result(lambda: len(run_table().newest(1000)))
        finally:
            workers.end()
    return {
        "done": done,
        "runs": len(ids),
        "rows": rows - len(KINDS),
        "left": left,
        "wrong": wrong,
        "calm": calm,
    }


def _begin_adding(number: int, seed: int) -> Callable[[], str]:
    """Queue a run in a child, at the same time as what this process does; return how to get its id."""
    reader, writer = os.pipe()
    pid = fork(lambda: os.write(writer, add(number, seed).encode()))
    os.close(writer)

    def result() -> str:
        with os.fdopen(reader) as file:
            text = file.read()
        _, status = os.waitpid(pid, 0)
        assert status == 0 and text, (status, text)
        return text

    return result


if __name__ == "__main__":
    for module in (store, lease):
        vars(module)["LEASE_SECONDS"] = LEASE
    print(json.dumps(experiment(int(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201
