"""A generator in a process of its own, so that its death is a failed picture and not a dead program.

The child is a fresh interpreter that holds one engine and draws one picture at a time; nothing is forked, and
the caller's own script is not imported again. Parent and child take turns on one pipe, so the caller hears
each step before the next one, and the pixels are those of the same engine in this process. A caller who can
be asked between two steps (`StopCallback`) is asked four times a second, also while a model loads or a step
hangs.
Not covered: several processes for one engine.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from pleinair.tools.callbacks import no_callback, stop_check
from pleinair.tools.types import Capabilities, GenerateRequest, Generator, ModelFault, OnStep, Value
from pleinair.tools.worker.child import PAUSE, Child, Gone

if TYPE_CHECKING:
    from PIL.Image import Image


def _vacant() -> None:
    """Name nobody."""


class Sitter(Protocol):
    """Have a process, and end it when another is to have one."""

    def leave(self) -> None:
        """End the process, which draws nothing now."""


class DeviceLock:
    """Let one worker at a time have a process.

    Who comes while a picture is drawn waits for it; who comes after another worker ends that one's process
    first. Not covered: other programs with models on the same device, and an order of waiting.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._holder: Callable[[], Sitter | None] = _vacant

    @contextmanager
    def taken(self, sitter: Sitter, check: Callable[[], None]) -> Iterator[None]:
        """Hold the place; while another holds it, `check` is asked now and then, and may raise."""
        while not self.lock.acquire(timeout=PAUSE):
            check()
        try:
            before = self._holder()
            if before is not None and before is not sitter:
                before.leave()
            self._holder = weakref.ref(sitter)
            yield
        finally:
            self.lock.release()


DEATHS = 2  # of one request; after that it is not tried again
log = logging.getLogger(__name__)


class WorkerOptions(Value):
    """Say whether the generator has its own process, and how long it may take to stop when asked to."""

    process: bool = False
    grace: float = Field(default=10.0, gt=0)  # seconds


class Worker:
    """Draw with an engine of the registry in a process that is started at the first use.

    A process that died is started anew by the next request, but not a third time for the same one.

    Args:
        engine: name of a generator.
        arguments: of the engine, plain JSON.
        grace: seconds that a stop may take before the process is killed.
        seat: shared by workers of which only one may have a process at a time.
    """

    def __init__(
        self, engine: str, arguments: Mapping[str, Any], grace: float = 10.0, seat: DeviceLock | None = None
    ) -> None:
        self._engine, self._arguments, self._grace = engine, dict(arguments), grace
        self._seat = seat or DeviceLock()
        self._child: Child | None = None
        self._able: Capabilities | None = None
        self.offload_levels: Sequence[str] = ()  # told by the process with its last picture
        self._deaths: Counter[str] = Counter()

    @property
    def capabilities(self) -> Capabilities:
        """Say what the engine can do; the first look starts the process, without the model's weights."""
        self.start()
        assert self._able is not None
        return self._able

    def start(self, on_step: OnStep | None = None) -> None:
        """Start the process, if there never was one; a `StopCallback` may end the wait."""
        if self._able is None:
            check = stop_check(on_step) if on_step else no_callback
            with self._seat.taken(self, check):
                self._alive(check)

    def greet(self) -> str:
        """Give the engine's id from its process, which is started if there is none; no weights are loaded."""
        with self._seat.taken(self, no_callback):
            self._alive(no_callback)
        return self.capabilities.id

    @property
    def pid(self) -> int | None:
        """Give the id of the process while there is one."""
        child = self._child
        return child.process.pid if child and child.process.poll() is None else None

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Draw one picture; a second caller waits for the first.

        Args:
            request: prompt, size, steps, guidance and seed.
            images: the references' pictures, in the order of `request.references`.
            on_step: told the steps done and the steps in all, and the previews if it is a `PreviewCallback`;
                what it raises stops the picture. A `StopCallback` is asked while it waits for its turn too.

        Raises:
            ModelFault: the process died, with what ended it; or it died twice of this request before.
            PleinairError: what the engine raised, with its class and text.
        """
        key, check = request.model_dump_json(), stop_check(on_step)
        with self._seat.taken(self, check):
            self._refuse(key)
            child = self._alive(check)
            try:
                picture, self.offload_levels = child.draw(request, images, on_step, self._grace)
            except Gone:
                self._deaths[key] += 1
                raise ModelFault(f"{self._name} died while drawing: {child.last_words()}.") from None
            finally:
                if child.busy:
                    child.close()
            self._deaths.pop(key, None)
            return picture

    def close(self) -> None:
        """End the process, after the picture that it is at; the next use starts a new one."""
        with self._seat.lock:
            self.leave()

    def leave(self) -> None:
        """End the process for the next one in its seat, who holds it now."""
        if self._child:
            self._child.close()

    @property
    def _name(self) -> str:
        return f"The process of `{self._able.id if self._able else self._engine}`"

    def _refuse(self, key: str) -> None:
        if self._deaths[key] >= DEATHS:
            raise ModelFault(
                f"{self._name} died {DEATHS} times of this request: it is not tried again. "
                "Ask for a smaller picture, for fewer or smaller references, or free memory."
            )

    def _alive(self, check: Callable[[], None]) -> Child:
        if self._child and self._child.process.poll() is None:
            return self._child
        if self._child and not self._child.closed:
            log.warning("%s is started anew: %s.", self._name, self._child.last_words())
            self._child.close()
        child, self._child, self.offload_levels = Child(), None, ()  # a new process begins on the first rung
        try:
            self._able = child.open(self._engine, self._arguments, check)
            self._child = child
        except Gone:
            raise ModelFault(f"{self._name} died while starting: {child.last_words()}.") from None
        finally:
            if self._child is None:
                child.close()
        return child


def started(generator: Generator, on_step: OnStep) -> Generator:
    """Start a worker's process, as long as `on_step` lets it; any other generator is there already."""
    if isinstance(generator, Worker):
        generator.start(on_step)
    return generator
