"""A generator in its own process, so that a crash of it fails one image and not the program.

The child is a fresh interpreter that holds one generator and generates one image at a time. Parent and child
take turns on one pipe, so the caller receives each step before the next one, and the pixels are those of the
same generator in this process. A `StopCallback` is checked four times a second, also while a model loads or a
step hangs. Not covered: several processes for one generator.
"""

from __future__ import annotations

import logging
import signal
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Pipe
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pleinair.tools.callbacks import PreviewCallback, no_callback, stop_check
from pleinair.tools.child_process import ChannelClosed, ChildProcess
from pleinair.tools.deadline import OVERTIME, check_deadline, seconds_left
from pleinair.tools.types import Capabilities, GenerateRequest, Generator, ModelFault, OnStep, Value
from pleinair.tools.worker.process import pack, unpack

if TYPE_CHECKING:
    from PIL.Image import Image

_AWAITS_REPLY = ("step", "preview")  # messages amid an image, after which the process waits for our word
_POLL = 0.25  # seconds between two checks whether to stop
_EXIT_TIME = 10.0  # seconds between the end of the pipe and the end of the process
_MAX_CRASHES = 2  # of one request; after that it is refused

_Message = tuple[str, Any]
log = logging.getLogger(__name__)


class WorkerOptions(Value):
    """Settings of the generator's own process."""

    process: bool = False  # run the generator in a process of its own
    grace: float = Field(default=10.0, gt=0)  # seconds from a stop to the end of that process


class DeviceLock:
    """Lock that lets one worker at a time have a process.

    A worker waits until another one's image is finished, and then ends that one's process. Not covered: other
    programs with models on the same device, and an order of waiting.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._holder: Callable[[], Worker | None] = lambda: None

    @contextmanager
    def held_by(self, worker: Worker, check: Callable[[], None]) -> Iterator[None]:
        """Acquire the lock for the block; `check` is called while another worker holds it, and may raise."""
        while not self.lock.acquire(timeout=_POLL):
            check()
            check_deadline()
        try:
            last = self._holder()
            if last is not None and last is not worker:
                last.end_process()
            self._holder = weakref.ref(worker)
            yield
        finally:
            self.lock.release()


class Worker:
    """Generator of the registry in a process that is started at the first use.

    A process that crashed is started again for the next request, but not a third time for the same one.

    Args:
        backend: name of a generator.
        arguments: of the generator, plain JSON.
        grace: seconds that a stop may take before the process is killed.
        device_lock: shared by workers of which only one may have a process at a time.
    """

    def __init__(
        self,
        backend: str,
        arguments: Mapping[str, Any],
        grace: float = 10.0,
        device_lock: DeviceLock | None = None,
    ) -> None:
        self._backend, self._arguments, self._grace = backend, dict(arguments), grace
        self._device_lock = device_lock or DeviceLock()
        self._process: WorkerProcess | None = None
        self._capabilities: Capabilities | None = None
        self.offload_levels: Sequence[str] = ()  # of the last image
        self._crashes: Counter[str] = Counter()

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the generator; the first access starts the process, without the model's weights."""
        self.start()
        assert self._capabilities is not None
        return self._capabilities

    def start(self, on_step: OnStep | None = None) -> None:
        """Start the process, if there never was one; a `StopCallback` may end the wait."""
        if self._capabilities is None:
            check = stop_check(on_step) if on_step else no_callback
            with self._device_lock.held_by(self, check):
                self._started(check)

    def greet(self) -> str:
        """Return the generator's id from its process, started if there is none; no weights are loaded."""
        with self._device_lock.held_by(self, no_callback):
            self._started(no_callback)
        return self.capabilities.id

    @property
    def pid(self) -> int | None:
        """Id of the process while there is one."""
        process = self._process
        return process.process.pid if process and process.alive else None

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Generate one image; a second caller waits for the first.

        Args:
            request: prompt, size, steps, guidance and seed.
            images: the references' images, in the order of `request.references`.
            on_step: called with the steps done and the total, and with previews if it is a `PreviewCallback`;
                what it raises stops the image. A `StopCallback` is also checked while waiting for the device.

        Raises:
            ModelFault: the process crashed, with the cause; or it crashed twice at this request before.
            PleinairError: what the generator raised, with its class and text.
        """
        key, check = request.model_dump_json(), stop_check(on_step)
        with self._device_lock.held_by(self, check):
            if self._crashes[key] >= _MAX_CRASHES:
                raise ModelFault(
                    f"{self._name} died {_MAX_CRASHES} times of this request: it is not tried again.",
                    "Ask for a smaller image, for fewer or smaller references, or free memory.",
                )
            process = self._started(check)
            try:
                image, self.offload_levels = process.generate(request, images, on_step, self._grace)
            except ChannelClosed:
                self._crashes[key] += 1
                raise ModelFault(f"{self._name} died while generating: {process.exit_cause()}.") from None
            finally:
                if process.busy:
                    process.close()
            self._crashes.pop(key, None)
            return image

    def close(self) -> None:
        """End the process, after the image in progress; the next use starts a new one."""
        with self._device_lock.lock:
            self.end_process()

    def end_process(self) -> None:
        """End the idle process; the caller holds the device lock."""
        if self._process:
            self._process.close()

    @property
    def _name(self) -> str:
        return f"The process of `{self._capabilities.id if self._capabilities else self._backend}`"

    def _started(self, check: Callable[[], None]) -> WorkerProcess:
        if self._process and self._process.alive:
            return self._process
        if self._process and not self._process.closed:
            log.warning("%s is started again: %s.", self._name, self._process.exit_cause())
            self._process.close()
        process, self._process, self.offload_levels = WorkerProcess(), None, ()
        try:
            self._capabilities = process.load(self._backend, self._arguments, check)
            self._process = process
        except ChannelClosed:
            raise ModelFault(f"{self._name} died while starting: {process.exit_cause()}.") from None
        finally:
            if self._process is None:
                process.close()
        return process


def started(generator: Generator, on_step: OnStep) -> Generator:
    """Start the process of a worker, unless `on_step` stops it; return any other generator as it is."""
    if isinstance(generator, Worker):
        generator.start(on_step)
    return generator


class WorkerProcess(ChildProcess):
    """Process of a worker, and the pipe to it.

    `busy` is true from a request to its answer: a process that was left in between cannot be used again.
    """

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        # stdout=2: what a generator prints is no output of this program
        super().__init__("pleinair.tools.worker.process", self.pipe, theirs, stdout=2)
        self.busy = True

    def load(
        self, backend: str, arguments: Mapping[str, Any], check: Callable[[], None] = no_callback
    ) -> Capabilities:
        """Build the generator; raise what it or `check` raises."""
        self._send((backend, arguments))
        capabilities: Capabilities = self._result(self._receive(check))
        return capabilities

    def generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep, grace: float
    ) -> tuple[Image, Sequence[str]]:
        """Generate one image; return it with the offload levels. Raise what either side raises."""
        self.busy, check = True, stop_check(on_step)
        self._send((request, [pack(image) for image in images], isinstance(on_step, PreviewCallback)))
        while (message := self._next(check, on_step, grace))[0] in _AWAITS_REPLY:
            self._send(True)
        image, offload_levels = self._result(message)
        return unpack(image), offload_levels

    def exit_cause(self) -> str:
        """Describe how the process ended."""
        code = self.exit_code(_EXIT_TIME)
        if code is None:
            return "it closed its pipe and still runs"
        if code >= 0:
            return f"it ended by itself, with exit status {code}"
        name = {number.value: number.name for number in signal.Signals}.get(-code, f"signal {-code}")
        hint = ", as a system does that runs out of memory" if name == "SIGKILL" else ""
        return f"it was ended by {name}{hint}"

    def _next(self, check: Callable[[], None], on_step: OnStep, grace: float) -> _Message:
        """Receive a message and call back; stop the generator if the caller raises."""
        message: _Message = ("", None)
        try:
            message = self._receive(check)
            if message[0] == "step":
                on_step(*message[1])
            elif message[0] == "preview" and isinstance(on_step, PreviewCallback):
                on_step.show(unpack(message[1]))
        except BaseException:
            self._stop(grace, awaited=message[0] in _AWAITS_REPLY)
            raise
        return message

    def _stop(self, grace: float, awaited: bool) -> None:
        """Stop the generator, at once if it awaits a reply, else at one of its steps before `grace` ends."""
        deadline = monotonic() + min(grace, max(seconds_left(), 0.0) + OVERTIME)
        with suppress(ChannelClosed):
            while True:
                if awaited:
                    self._send(False)
                if not self.pipe.poll(max(0.0, deadline - monotonic())):
                    return
                awaited = self._receive()[0] in _AWAITS_REPLY
                if not awaited:
                    self.busy = False
                    return

    def _result(self, message: _Message) -> Any:
        self.busy = False
        if message[0] == "error":
            raise message[1]
        return message[1]

    def _send(self, value: Any) -> None:
        try:
            self.pipe.send(value)
        except ConnectionError as error:
            raise ChannelClosed from error

    def _receive(self, check: Callable[[], None] = no_callback) -> _Message:
        while not self.pipe.poll(_POLL):
            check()
            check_deadline()
        try:
            message: _Message = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise ChannelClosed from error
        return message
