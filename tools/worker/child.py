"""The parent's end of a worker: one process, the pipe to it, and what ended it."""

from __future__ import annotations

import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from time import monotonic
from typing import TYPE_CHECKING, Any

from pleinair.tools.callbacks import PreviewCallback, no_callback, stop_check
from pleinair.tools.types import Capabilities, GenerateRequest, OnStep
from pleinair.tools.worker.process import flat, whole

if TYPE_CHECKING:
    from PIL.Image import Image

TURNS = ("step", "preview")  # what the process says in the middle of a picture, and waits for our word
PAUSE = 0.25  # seconds between two looks whether to go on, while nothing is said
LAST_BREATH = 10.0  # seconds between the end of the pipe and the end of the process
CHILD = """
import sys
sys.path[:] = sys.argv[2:]
from pleinair.tools.worker.process import serve
serve(int(sys.argv[1]))
"""


class Gone(Exception):
    """The other end of the pipe is closed."""


class Child:
    """Hold one process and the pipe to it; it is killed when nobody holds it any more, or at exit.

    `busy` is true from a question to its answer: a process that was left in between is of no more use.
    """

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", CHILD, str(theirs.fileno()), *map(str, sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what an engine prints is no output of this program
            )
        self._end = weakref.finalize(self, _end, self.process, self.pipe)
        self.busy = True

    @property
    def closed(self) -> bool:
        """Say whether it was ended from here."""
        return not self._end.alive

    def open(
        self, engine: str, arguments: Mapping[str, Any], check: Callable[[], None] = no_callback
    ) -> Capabilities:
        """Build the engine; raise what it or `check` raises."""
        self._say((engine, arguments))
        able: Capabilities = self._answer(self._hear(check))
        return able

    def draw(
        self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep, grace: float
    ) -> tuple[Image, Sequence[str]]:
        """Generate one image; return it with the offload levels. Raise what either raises."""
        self.busy, check = True, stop_check(on_step)
        self._say((request, [flat(image) for image in images], isinstance(on_step, PreviewCallback)))
        while (told := self._turn(check, on_step, grace))[0] in TURNS:
            self._say(True)
        picture, offload_levels = self._answer(told)
        return whole(picture), offload_levels

    def last_words(self) -> str:
        """Say what ended the process; kill it if it has closed the pipe and yet goes on."""
        try:
            code = self.process.wait(LAST_BREATH)
        except subprocess.TimeoutExpired:
            return "it fell silent"
        return _cause(code)

    def close(self) -> None:
        """End the process, without a question."""
        self._end()

    def _turn(self, check: Callable[[], None], on_step: OnStep, grace: float) -> tuple[str, Any]:
        """Hear one thing, and pass it on where a word is awaited; if the caller raises, stop it all."""
        told: tuple[str, Any] = ("", None)
        try:
            told = self._hear(check)
            if told[0] in TURNS:
                _pass_on(told, on_step)
        except BaseException:
            self._stop(grace, waits=told[0] in TURNS)
            raise
        return told

    def _stop(self, grace: float, waits: bool) -> None:
        """Ask the engine to stop, at each of its steps until the grace is over; now, if it waits at one."""
        deadline = monotonic() + grace
        with suppress(Gone):
            while True:
                if waits:
                    self._say(False)
                if not self.pipe.poll(max(0.0, deadline - monotonic())):
                    return
                waits = self._hear()[0] in TURNS
                if not waits:
                    self.busy = False
                    return

    def _answer(self, told: tuple[str, Any]) -> Any:
        self.busy = False
        if told[0] == "error":
            raise told[1]
        return told[1]

    def _say(self, what: Any) -> None:
        try:
            self.pipe.send(what)
        except ConnectionError as error:
            raise Gone from error

    def _hear(self, check: Callable[[], None] = no_callback) -> tuple[str, Any]:
        while not self.pipe.poll(PAUSE):
            check()
        try:
            told: tuple[str, Any] = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise Gone from error
        return told


def _pass_on(told: tuple[str, Any], on_step: OnStep) -> None:
    """Tell the caller of a step, or show the preview that only a viewer is sent."""
    if told[0] == "step":
        on_step(*told[1])
    elif isinstance(on_step, PreviewCallback):
        on_step.show(whole(told[1]))


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    """Kill a process and wait until it is gone; its engine keeps nothing that would be lost."""
    pipe.close()
    process.kill()
    process.wait()


def _cause(code: int) -> str:
    """Put a return code into words."""
    if code >= 0:
        return f"it ended by itself, with exit status {code}"
    name = {known.value: known.name for known in signal.Signals}.get(-code, f"signal {-code}")
    hint = ", as a system does that runs out of memory" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"
