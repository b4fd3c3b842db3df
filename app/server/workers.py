"""Worker processes of a server: started with it, started again when they die."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

PAUSE = 1.0  # seconds before a worker that died is started again; doubled each time, up to `LONG`
LONG = 60.0  # seconds after which a worker that dies is the first to do so
GRACE = 10.0  # seconds from the request to stop to the end of a worker
log = logging.getLogger(__name__)


class Workers:
    """Worker processes, for the block.

    A worker stops at its next step when its standard input ends, so also when the server is killed; the run
    goes on in the next worker.

    Args:
        count: of processes.
        tell: called, in a thread, at events of the runs.
    """

    def __init__(self, count: int, tell: Callable[[], None] = lambda: None) -> None:
        self._tell, self._stop = tell, threading.Event()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}  # by number
        self._threads = [
            threading.Thread(target=self._keep, args=(number,), name=f"worker {number}")
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def look(self) -> None:
        """Signal the workers that there is something new in the queue."""
        for process in list(self._processes.values()):
            if process.stdin:
                with suppress(OSError, ValueError):  # it has died, or is being stopped
                    os.write(process.stdin.fileno(), b"\n")

    def _keep(self, number: int) -> None:
        pause = PAUSE
        while not self._stop.is_set():
            started = time.monotonic()
            status = self._run(number)
            if not self._stop.is_set():
                log.warning("A worker ended with status %s; started again.", status)
                pause = PAUSE if time.monotonic() - started > LONG else min(2 * pause, LONG)
                self._stop.wait(pause)

    def _run(self, number: int) -> int:
        """Start a worker and return the status with which it ends."""
        reading, writing = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "pleinair.app.runs.worker", str(writing)],
                stdin=subprocess.PIPE,
                stdout=sys.stderr,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        assert process.stdin
        os.set_blocking(process.stdin.fileno(), False)
        self._processes[number] = process
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()
        try:
            return self._await(process)
        finally:
            del self._processes[number]

    def _listen(self, file: int) -> None:
        with open(file, "rb", buffering=0) as events:
            while events.read(1024):
                self._tell()

    def _await(self, process: subprocess.Popen[bytes]) -> int:
        while process.poll() is None:
            if self._stop.wait(0.2):
                assert process.stdin
                process.stdin.close()
                try:
                    return process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    return process.wait()
        return process.returncode
