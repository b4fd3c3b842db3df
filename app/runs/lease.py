"""Lease of a run: renewed in the background and checked before every effect."""

from __future__ import annotations

import threading
from types import TracebackType

from pleinair.app.runs.store import LEASE_SECONDS, LeaseLost, Run, Runs, new_owner
from pleinair.tools.types import Cancelled, Outcome, PleinairError


class Lease:
    """Lease of a run: claimed on entry, renewed meanwhile, released on exit unless an outcome was committed.

    Raises `Busy` or `Finished` on entry. `reopen` also claims a run that failed or was to be cancelled.
    """

    def __init__(self, runs: Runs, run_id: str, *, reopen: bool = False) -> None:
        self._runs, self._run_id, self._reopen = runs, run_id, reopen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name=f"lease {run_id}")
        self.fence = 0

    def __enter__(self) -> Lease:
        self.fence = self._runs.claim(self._run_id, new_owner(), reopen=self._reopen)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._row().fence == self.fence and self._row().status == "running":
            self._runs.release(self._run_id, self.fence)

    def check(self) -> None:
        """Raise `LeaseLost` when another holder has taken over, `Cancelled` when the user asked to stop."""
        run = self.guard()
        if run.cancel_requested:
            raise Cancelled("you asked it to stop")

    def guard(self) -> Run:
        """Return the row; raise `LeaseLost` when another holder has taken over or the run is finished."""
        run = self._row()
        if run.fence != self.fence or run.status != "running":
            raise LeaseLost(f"run {self._run_id} has been taken over by another process")
        return run

    def commit(self, outcome: Outcome) -> None:
        """Write the outcome; raises `LeaseLost`."""
        self._runs.commit(self._run_id, self.fence, outcome)

    def _row(self) -> Run:
        return self._runs.get(self._run_id)

    def _renew(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 6):
            try:
                self._runs.renew(self._run_id, self.fence)
            except LeaseLost:
                return  # the next check raises it where it can be handled
            except PleinairError:
                continue  # a table that is locked or a disk that is full now may not be at the next renewal
