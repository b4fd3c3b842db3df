"""A generator or an encoder in its own process, so that it can be killed and its crash fails one call only.

The child is a fresh interpreter that holds one part and answers one call at a time. Parent and child take
turns on one pipe, so the caller receives each step before the next one, and pixels and vectors are those of
the same part in this process. The deadline and a `StopCallback` are checked four times a second, also while a
model loads or a step hangs. A part on several devices is a worker for each of them, with a lock of its own.
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
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import Field

from pleinair.tools.callbacks import PreviewCallback, no_callback, stop_check
from pleinair.tools.child_process import ChannelClosed, ChildProcess
from pleinair.tools.deadline import OVERTIME, check_deadline, seconds_left
from pleinair.tools.realrag import Training
from pleinair.tools.registry import Kind
from pleinair.tools.types import Capabilities, GenerateRequest, ModelFault, OnStep, Value
from pleinair.tools.worker.process import EncoderFacts, pack, unpack

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Features, Vectors

_AWAITS_REPLY = ("step", "preview")  # messages amid an image, after which the process waits for our word
_POLL = 0.25  # seconds between two checks whether to stop
_EXIT_TIME = 10.0  # seconds between the end of the pipe and the end of the process
_MAX_CRASHES = 2  # of one request; after that it is refused

_Message = tuple[str, Any]
_Facts = TypeVar("_Facts", bound=Capabilities | EncoderFacts)
_Part = TypeVar("_Part")
log = logging.getLogger(__name__)


class ProcessDied(ModelFault):
    """The process of a part crashed or was killed."""


class WorkerOptions(Value):
    """Settings of the processes of the generator and the encoder."""

    process: bool = False  # run the generator in a process of its own
    encoder: bool = False  # run each encoder in a process of its own
    grace: float = Field(default=10.0, gt=0)  # seconds from a stop to the end of the generator's process


class DeviceLock:
    """Lock that lets one worker at a time have a process.

    A worker waits until another one's image is finished, and then ends that one's process. Not covered: other
    programs with models on the same device, and an order of waiting.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._holder: Callable[[], Worker[Any] | None] = lambda: None

    @contextmanager
    def held_by(self, worker: Worker[Any], check: Callable[[], None]) -> Iterator[None]:
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

    def unload(self) -> None:
        """End the process of the last worker, after a call in progress; its next use starts a new one."""
        with self.lock:
            last = self._holder()
            if last is not None:
                last.end_process()


class Worker(Generic[_Facts]):
    """Part of the registry in a process that is started at the first use, and again after a crash.

    Args:
        backend: name of the part.
        arguments: of the part, plain JSON.
        grace: seconds that a stop may take before the process of a generator is killed.
        device_lock: shared by workers of which only one may have a process at a time.
    """

    _kind: ClassVar[Kind]

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
        self._facts: _Facts | None = None

    @property
    def facts(self) -> _Facts:
        """What the part says of itself; the first access starts the process."""
        self.start()
        assert self._facts is not None
        return self._facts

    def start(self, on_step: OnStep | None = None) -> None:
        """Start the process, if there never was one; a `StopCallback` may end the wait."""
        if self._facts is None:
            check = stop_check(on_step) if on_step else no_callback
            with self._device_lock.held_by(self, check):
                self._started(check)

    def greet(self) -> str:
        """Return the part's id from its process, started if there is none."""
        with self._device_lock.held_by(self, no_callback):
            self._started(no_callback)
        return self.facts.id

    @property
    def pid(self) -> int | None:
        """Id of the process while there is one."""
        process = self._process
        return process.process.pid if process and process.alive else None

    def close(self) -> None:
        """End the process, after the call in progress; the next use starts a new one."""
        with self._device_lock.lock:
            self.end_process()

    def end_process(self) -> None:
        """End the idle process; the caller holds the device lock."""
        if self._process:
            self._process.close()

    @property
    def _name(self) -> str:
        return f"The process of `{self._facts.id if self._facts else self._backend}`"

    @contextmanager
    def _running(self, doing: str, check: Callable[[], None]) -> Iterator[WorkerProcess]:
        """Yield the process for one call, killed if that is left unanswered; the caller holds the lock."""
        process = self._started(check)
        try:
            yield process
        except ChannelClosed:
            raise ProcessDied(f"{self._name} died while {doing}: {process.exit_cause()}.") from None
        finally:
            if process.busy:
                process.close()

    def _started(self, check: Callable[[], None]) -> WorkerProcess:
        if self._process and self._process.alive:
            return self._process
        if self._process and not self._process.closed:
            log.warning("%s is started again: %s.", self._name, self._process.exit_cause())
            self._process.close()
        process, self._process = WorkerProcess(), None
        try:
            self._facts = process.call(self._kind, self._backend, self._arguments, check=check)
            self._process = process
        except ChannelClosed:
            raise ProcessDied(f"{self._name} died while starting: {process.exit_cause()}.") from None
        finally:
            if self._process is None:
                process.close()
        return process


class GeneratorWorker(Worker[Capabilities]):
    """Generator in its own process; a request that crashed it twice is not tried a third time."""

    _kind = "generator"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._crashes = Counter[str]()

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the generator; the first access starts the process, without the model's weights."""
        return self.facts

    @property
    def offload_levels(self) -> Sequence[str]:
        """Levels that the process has tried, in that order."""
        return self._process.offload_levels if self._process else ()

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Generate one image; a second caller waits for the first.

        Args:
            request: prompt, size, steps, guidance and seed.
            images: the references' images, in the order of `request.references`.
            on_step: called with the steps done and the total, and with previews if it is a `PreviewCallback`;
                what it raises stops the image. A `StopCallback` is also checked while waiting for the device.

        Raises:
            ProcessDied: the process crashed, with the cause.
            ModelFault: it crashed twice at this request before.
            PleinairError: what the generator raised, with its class and text.
        """
        return self._generate(request, images, on_step)[0]

    def generate_batch(self, request: GenerateRequest, seeds: Sequence[int], on_step: OnStep) -> list[Image]:
        """Generate the image of a request without references and, where there is room, of further seeds.

        Errors as of `generate`; of a generator without batches, only the first image.
        """
        return self._generate(request, (), on_step, seeds)

    def _generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep, seeds: Sequence[int] = ()
    ) -> list[Image]:
        key, check = request.model_dump_json(), stop_check(on_step)
        with self._device_lock.held_by(self, check):
            if self._crashes[key] >= _MAX_CRASHES:
                raise ModelFault(
                    f"{self._name} died {_MAX_CRASHES} times of this request: it is not tried again.",
                    "Ask for a smaller image, for fewer or smaller references, or free memory.",
                )
            with self._running("generating", check) as process:
                try:
                    results = process.generate(request, images, on_step, self._grace, seeds)
                except ChannelClosed:
                    self._crashes[key] += 1
                    raise
            self._crashes.pop(key, None)
            return results


class EncoderWorker(Worker[EncoderFacts]):
    """Encoder in its own process; threads may share it, and take turns.

    Methods raise `ProcessDied` with the cause if the process crashed, `OutOfTime` at the deadline, which ends
    the process, and what the encoder raised, with its class and text.
    """

    _kind = "encoder"

    @property
    def id(self) -> str:
        """Return the encoder's id."""
        return self.facts.id

    @property
    def image_side(self) -> int:
        """Return the longer side of what the encoder sees, in pixels; 0 if it does not say."""
        return self.facts.image_side

    @property
    def training(self) -> Training | None:
        """Return the encoder's training, None for an untrained one."""
        return self.facts.training

    @property
    def device(self) -> str:
        """Return the torch device of the encoder."""
        return self.facts.device

    @property
    def jpeg_decoder(self) -> str:
        """Return what decodes the JPEG files of a library that is indexed."""
        return self.facts.jpeg_decoder

    @property
    def has_patches(self) -> bool:
        """Return whether the encoder has `encode_patches`."""
        return self.facts.has_patches

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Embed texts: float32 [n, dim], rows of length 1."""
        return self._rows("encode_text", list(texts))

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Embed images: float32 [n, dim], rows of length 1."""
        return self._rows("encode_images", [pack(image) for image in images])

    def encode_patches(self, images: Sequence[Image]) -> Features:
        """Embed images patch by patch: float32 [n, patches, channels]."""
        return self._rows("encode_patches", [pack(image) for image in images])

    def _rows(self, method: str, items: Sequence[Any]) -> Vectors | Features:
        with self._device_lock.held_by(self, no_callback), self._running("encoding", no_callback) as process:
            rows: Vectors = process.call(method, items)
            return rows


def started(part: _Part, on_step: OnStep) -> _Part:
    """Start the process of a worker, unless `on_step` stops it; return any other part as it is."""
    if isinstance(part, Worker):
        part.start(on_step)
    return part


class WorkerProcess(ChildProcess):
    """Process of a worker, and the pipe to it.

    `busy` is true from a request to its answer: a process that was left in between cannot be used again.
    """

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        # stdout=2: what a part prints is no output of this program
        super().__init__("pleinair.tools.worker.process", self.pipe, theirs, stdout=2)
        self.busy = True
        self.offload_levels: Sequence[str] = ()  # of the last image

    def call(self, *message: Any, check: Callable[[], None] = no_callback) -> Any:
        """Return the facts of a part (kind, name, arguments) or the answer to a call without steps.

        Raise what either side raises.
        """
        self.busy = True
        self._send(message)
        return self._result(self._receive(check))

    def generate(
        self,
        request: GenerateRequest,
        images: Sequence[Image],
        on_step: OnStep,
        grace: float,
        seeds: Sequence[int] = (),
    ) -> list[Image]:
        """Generate one image, and perhaps those of further seeds; raise what either side raises."""
        self.busy, check, previews = True, stop_check(on_step), isinstance(on_step, PreviewCallback)
        self._send((request, [pack(image) for image in images], previews, seeds))
        while (message := self._next(check, on_step, grace))[0] in _AWAITS_REPLY:
            self._send(True)
        results, self.offload_levels = self._result(message)
        return [*map(unpack, results)]

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
        while True:
            while not self.pipe.poll(_POLL):
                check()
                check_deadline()
            try:
                kind, value = self.pipe.recv()
            except (EOFError, ConnectionError) as error:
                raise ChannelClosed from error
            if kind != "log":
                return kind, value
            name, level, text = value
            logging.getLogger(name).log(level, "%s", text)
