"""Process that competes for leases of runs; importable by the processes that a test spawns."""

import multiprocessing
from pathlib import Path

from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Runs
from pleinair.tools.types import Outcome

DONE = Outcome(ending="accepted", reason="every concept is present")


def contend(path: Path, ids: list[str], results: "multiprocessing.Queue[tuple[int, int, int]]") -> None:
    """Claim and commit every free run; count claims, commits and refusals."""
    runs, claims, commits, refused = Runs(path), 0, 0, 0
    for run_id in ids:
        try:
            fence = runs.claim(run_id, new_owner())
            claims += 1
            runs.commit(run_id, fence, DONE)
            commits += 1
        except (Busy, Finished, LeaseLost):
            refused += 1
    results.put((claims, commits, refused))
