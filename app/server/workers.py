"""Worker processes of a server: started with it, started again when they die."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import Self

PAUSE = 1.0  # seconds before a worker that died is started again; doubled each time, up to a minute
GRACE = 10.0  # seconds from the request to stop to the end of a worker
log = logging.getLogger(__name__)


class Workers:
    """Worker processes, for the block.

    A worker reads its standard input and stops at its end, so it also stops when the server is killed; a run
    that it works on goes on with the next worker.
    """

    def __init__(self, count: int) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._keep, name=f"worker {n}") for n in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _keep(self) -> None:
        pause = PAUSE
        while not self._stop.is_set():
            process = subprocess.Popen(
                [sys.executable, "-m", "pleinair.app.runs.worker"], stdin=subprocess.PIPE, stdout=sys.stderr
            )
            self._await(process)
            if not self._stop.is_set():
                log.warning("A worker ended with status %s; started again.", process.returncode)
                self._stop.wait(pause)
                pause = min(2 * pause, 60.0)

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            if self._stop.wait(0.2):
                assert process.stdin
                process.stdin.close()
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
