"""Lease of a run by the process that works on it."""

from __future__ import annotations

import threading

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import LEASE_SECONDS, LeaseLost, Runs
from pleinair.tools.types import Cancelled, Outcome, PleinairError

STOPPED = "you asked it to stop"  # reason of an ending


class Released(PleinairError):
    """The holder of the run stops; the next one goes on from the last step."""


class Lease:
    """Lease of a run: claimed on entry, renewed until exit, released there unless an outcome was committed.

    Raises `Busy` or `Finished` on entry. `reopen` also claims a failed run, and drops a request to cancel.
    Once `stop` is set the run is to be released at its next step.
    """

    def __init__(
        self, runs: Runs, run_id: str, *, reopen: bool = False, stop: threading.Event | None = None
    ) -> None:
        self._runs, self._run_id, self._reopen = runs, run_id, reopen
        self._stop_holder = stop or threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name=f"lease {run_id}")
        self.fence = 0

    def __enter__(self) -> Lease:
        self.fence = self._runs.claim(self._run_id, new_owner(), reopen=self._reopen)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        run = self._row()
        if run.fence == self.fence and run.status == "running":
            self._runs.release(self._run_id, self.fence)

    def check(self) -> None:
        """Raise `LeaseLost` for another holder, `Cancelled` on a person's request, `Released` at a stop."""
        if self.guard().cancel_requested:
            raise Cancelled(STOPPED)
        if self._stop_holder.is_set():
            raise Released(f"run {self._run_id} goes on with its next holder")

    def guard(self) -> Run:
        """Return the row; raise `LeaseLost` if another holder has taken over or the run is finished."""
        run = self._row()
        if run.fence != self.fence or run.status != "running":
            raise LeaseLost(f"run {self._run_id} has been taken over by another process")
        return run

    def commit(self, outcome: Outcome) -> None:
        """Write the outcome; raises `LeaseLost`."""
        self._runs.commit(self._run_id, self.fence, outcome)

    def wait(self, question: ApprovalRequest) -> bool:
        """Release the run until its question is answered, unless it is to end; raises `LeaseLost`."""
        return self._runs.wait(self._run_id, self.fence, question)

    def _row(self) -> Run:
        return self._runs.get(self._run_id)

    def _renew(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 6):
            try:
                self._runs.renew(self._run_id, self.fence)
            except LeaseLost:
                return  # the next check raises it in the thread of the run
            except PleinairError:
                continue  # a locked table or a full disk may have recovered at the next renewal
