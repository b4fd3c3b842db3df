"""A generator or an encoder that Ray Serve holds on the nodes of a cluster, behind the same protocols.

What is served is a backend of the registry with its arguments: pixels and vectors are those of the same
backend in this process, on the same kind of processor. A call is sent to the replica with the fewest. Where
the replica or its node dies, the call is sent to another one: a request's seed makes it safe to repeat.

Not covered: batches over requests of several callers for a generator, and replicas of another version of
this package, which are refused.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pleinair.tools.callbacks import PreviewCallback, no_callback, stop_check
from pleinair.tools.cluster import ray_link
from pleinair.tools.deadline import check_deadline
from pleinair.tools.errors import Unavailable
from pleinair.tools.realrag import Training
from pleinair.tools.types import Capabilities, GenerateRequest, OnStep, Value
from pleinair.tools.worker.process import EncoderFacts, pack, unpack
from pleinair.tools.worker.worker import ProcessDied

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Features, Vectors

Served = Literal["generator", "encoder"]
TRIES = 3  # of one call, on replicas that die
_POLL = 0.25  # seconds between two checks whether to stop
log = logging.getLogger(__name__)


class ReplicaOptions(Value):
    """Number and resources of the replicas of a generator or an encoder, by the names of Ray Serve."""

    app: str = Field(
        default="", pattern=r"^[A-Za-z0-9_-]*$"
    )  # name of the application in Ray Serve; empty: pleinair-generator, pleinair-encoder
    min_replicas: int = Field(default=1, ge=0)  # replicas that are always there
    max_replicas: int = Field(default=1, ge=1)  # replicas under load
    target_ongoing_requests: float = Field(default=1.0, gt=0)  # calls a replica, beyond which one is added
    num_gpus: float = Field(default=0.0, ge=0)  # of a replica; 0.5: two share a GPU and must both fit
    num_cpus: float = Field(default=1.0, gt=0)  # of a replica, and threads of torch on the CPU

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas = {self.min_replicas}: must be at most max_replicas")
        if self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"num_gpus = {self.num_gpus}: must be a whole number, or less than 1")
        return self


class EncoderReplicaOptions(ReplicaOptions):
    """Options of an encoder's replicas."""

    batch: int = Field(
        default=1, ge=1, le=256
    )  # calls that wait at the same time and are embedded together; above 1 last bits may differ
    batch_wait: float = Field(default=0.01, ge=0, le=1)  # seconds that a call waits for others, if batch > 1


class ServeOptions(Value):
    """What Ray Serve holds on the cluster of `cluster.ray`; what has no table here is in this process."""

    generator: ReplicaOptions | None = None  # table of the generator's replicas
    encoder: EncoderReplicaOptions | None = None  # table of the encoder's replicas


class Part(NamedTuple):
    """Backend that an application holds; a call for another one is refused."""

    kind: Served
    backend: str
    arguments: str  # JSON
    version: str  # of this package

    @classmethod
    def of(cls, kind: Served, backend: str, arguments: Mapping[str, Any]) -> Part:
        """Return the part of a backend with its arguments, as this version of the package builds it."""
        from importlib.metadata import version

        return cls(kind, backend, json.dumps(arguments, sort_keys=True), version("pleinair"))


def app_name(kind: Served, options: ReplicaOptions) -> str:
    """Return the name of the application that holds a part."""
    return options.app or f"pleinair-{kind}"


def connect_serve(address: str) -> Any:
    """Connect to a cluster and return the module `ray.serve`; raise as `ray_link.connect`."""
    ray_link.connect(address)
    from ray import serve

    # its warnings are of single probes, also of a replica that is drawing; what matters is raised
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return serve


class ReplicaLost(Exception):
    """The replica of a call, or its node, is gone; the call may be sent to another."""


class RayPart:
    """Part of an application of Ray Serve; threads may share it, and their calls run at the same time.

    Args:
        backend: name of the part in the registry.
        arguments: of the part, plain JSON.
        address: of the cluster, as `ray_link.connect` takes it; first used by the first call.
        app: name of the application.
    """

    kind: ClassVar[Served]

    def __init__(self, backend: str, arguments: Mapping[str, Any], address: str, app: str) -> None:
        self.part = Part.of(self.kind, backend, arguments)
        self.address, self.app = address, app

    @cached_property
    def facts(self) -> Any:
        """What the part says of itself, of the first replica that answers."""
        return self.call("facts")

    def greet(self) -> str:
        """Return the part's id from a replica, and where that is."""
        return f"{self.call('facts').id}, on a replica of `{self.app}` at {self.address}"

    def call(self, method: str, *values: Any, on_step: OnStep = no_callback) -> Any:
        """Return what a replica answers.

        Args:
            method: one of `replicas.Replica`.
            values: its arguments.
            on_step: called at the steps and previews of an image; what it raises ends the call. The `check`
                of a `StopCallback` is called four times a second, also while the call waits for a replica.

        Raises:
            ProcessDied: replicas died three times while they had the call.
            Unavailable: no cluster, or no such application on it.
            BadInput: the application holds something else.
            PleinairError: what the part raised, with its class and text.
        """
        fault = ""
        for _ in range(TRIES):
            try:
                return self._once(method, values, on_step)
            except ReplicaLost as error:
                fault = str(error)
                self.__dict__.pop("_handle", None)  # the application may have been removed
                log.warning("A replica of `%s` was lost, the call is sent again: %s", self.app, fault)
        raise ProcessDied(
            f"The call was lost {TRIES} times with the replicas of `{self.app}`: {fault}",
            "`pleinair cluster status` shows replicas and nodes; memory may be short.",
        )

    def _once(self, method: str, values: Sequence[Any], on_step: OnStep) -> Any:
        """Send a call to one replica; raise `ReplicaLost` if that dies."""
        messages, check = SimpleQueue[tuple[str, Any]](), stop_check(on_step)
        response = self._handle.call.remote(self.part, method, *values)
        threading.Thread(target=_read, args=(response, messages), daemon=True, name="ray serve").start()
        try:
            while (message := _next(messages, check))[0] in ("step", "preview"):
                _report(on_step, *message)
        except BaseException:
            with suppress(Exception):  # it may have failed meanwhile
                response.cancel()
            raise
        if message[0] == "error":
            raise message[1]
        return message[1]

    @cached_property
    def _handle(self) -> Any:
        serve = connect_serve(self.address)
        from ray.serve.exceptions import RayServeException

        try:
            return serve.get_app_handle(self.app).options(stream=True)
        except RayServeException as error:
            raise Unavailable(
                f"The Ray cluster at {self.address} has no application `{self.app}`.",
                "`pleinair cluster deploy` with the same settings deploys it.",
            ) from error


def _next(messages: SimpleQueue[tuple[str, Any]], check: Callable[[], None]) -> tuple[str, Any]:
    """Return the next message; raise what `check` raises meanwhile, or `OutOfTime` at the deadline."""
    while True:
        check()
        check_deadline()
        with suppress(Empty):
            return messages.get(timeout=_POLL)


def _report(on_step: OnStep, kind: str, value: Any) -> None:
    if kind == "step":
        on_step(*value)
    elif isinstance(on_step, PreviewCallback):
        on_step.show(unpack(value))


def _read(response: Any, messages: SimpleQueue[tuple[str, Any]]) -> None:
    """Queue the messages of a replica, and last the error that ended them."""
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

    lost = (RayError, DeploymentUnavailableError, ReplicaUnavailableError)
    try:
        for message in response:
            messages.put(message)
        messages.put(("error", ReplicaLost("it ended without an answer")))
    except Exception as error:
        is_lost = isinstance(error, lost) and not isinstance(error, RayTaskError)
        reason = (str(error) or type(error).__name__).strip().split("\n")[0]
        messages.put(("error", ReplicaLost(reason) if is_lost else error))


class RayGenerator(RayPart):
    """Generator of Ray Serve: as many images at a time as it has replicas; others wait."""

    kind = "generator"

    def __init__(self, backend: str, arguments: Mapping[str, Any], address: str, app: str) -> None:
        super().__init__(backend, arguments, address, app)
        self._last = threading.local()

    @property
    def offload_levels(self) -> Sequence[str]:
        """Levels that the replica of this thread's last image has tried, in that order."""
        return getattr(self._last, "levels", ())

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the generator, from a replica; nothing is generated for them."""
        capabilities: Capabilities = self.facts
        return capabilities

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Generate one image on a replica; arguments as of `GeneratorWorker`, errors as of `call`."""
        return self._generate(request, images, on_step)[0]

    def generate_batch(self, request: GenerateRequest, seeds: Sequence[int], on_step: OnStep) -> list[Image]:
        """Generate the image of a request without references and, where there is room, of further seeds."""
        return self._generate(request, (), on_step, seeds)

    def _generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep, seeds: Sequence[int] = ()
    ) -> list[Image]:
        packed, previews = [*map(pack, images)], isinstance(on_step, PreviewCallback)
        results, self._last.levels = self.call(
            "generate", request, packed, previews, tuple(seeds), on_step=on_step
        )
        return [*map(unpack, results)]


class RayEncoder(RayPart):
    """Encoder of Ray Serve; errors as of `call`, and `OutOfTime` at the deadline of a run."""

    kind = "encoder"

    @property
    def id(self) -> str:
        """Return the encoder's id."""
        return self._facts.id

    @property
    def image_side(self) -> int:
        """Return the longer side of what the encoder sees, in pixels; 0 if it does not say."""
        return self._facts.image_side

    @property
    def training(self) -> Training | None:
        """Return the encoder's training, None for an untrained one."""
        return self._facts.training

    @property
    def device(self) -> str:
        """Return the torch device of the encoder."""
        return self._facts.device

    @property
    def has_patches(self) -> bool:
        """Return whether the encoder has `encode_patches`."""
        return self._facts.has_patches

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Embed texts: float32 [n, dim], rows of length 1."""
        return self._rows("encode_text", list(texts))

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Embed images: float32 [n, dim], rows of length 1."""
        return self._rows("encode_images", [*map(pack, images)])

    def encode_patches(self, images: Sequence[Image]) -> Features:
        """Embed images patch by patch: float32 [n, patches, channels]."""
        return self._rows("encode_patches", [*map(pack, images)])

    @property
    def _facts(self) -> EncoderFacts:
        facts: EncoderFacts = self.facts
        return facts

    def _rows(self, method: str, items: list[Any]) -> Vectors | Features:
        rows: Vectors = self.call("encode", method, items)
        return rows
