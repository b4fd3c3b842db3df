"""Processes that compete for leases of runs."""

import multiprocessing
from pathlib import Path

from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Runs
from pleinair.tools.types import Outcome

DONE = Outcome(ending="accepted", reason="every concept is present")


def commits_of(table: Path | str, ids: list[str], processes: int = 3) -> list[int]:
    """Let processes claim and commit all runs at once; return how many commits of each succeed."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    workers = [spawn.Process(target=_contend, args=(table, ids, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    commits = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return commits


def _contend(table: Path | str, ids: list[str], results: "multiprocessing.Queue[int]") -> None:
    """Claim and commit every free run; count the commits."""
    runs, commits = Runs(table), 0
    runs.unfinished()
    for run_id in ids:
        try:
            fence = runs.claim(run_id, new_owner())
            runs.commit(run_id, fence, DONE)
            commits += 1
        except (Busy, Finished, LeaseLost):
            continue
    results.put(commits)
