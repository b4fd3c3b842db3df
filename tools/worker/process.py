"""The worker's child process: it builds one generator and generates until the parent closes the pipe."""

from __future__ import annotations

import faulthandler
import pickle
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from traceback import format_exception
from typing import TYPE_CHECKING, Any

from pleinair.tools import registry
from pleinair.tools.callbacks import ReportsOffloadLevels
from pleinair.tools.storage.artifacts import charged, spent_on
from pleinair.tools.types import Cancelled, GenerateRequest, Generator, OnStep, PleinairError, Usage

if TYPE_CHECKING:
    from PIL.Image import Image

PackedImage = tuple[str, tuple[int, int], bytes, Usage]  # mode, (width, height), pixels, what it cost


def serve(descriptor: int) -> None:
    """Answer the parent until it closes the pipe: first a backend's name and arguments, then requests."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both, and the parent decides
    faulthandler.enable()
    with Connection(descriptor) as pipe, suppress(EOFError, ConnectionError):
        name, arguments = pipe.recv()
        try:
            generator: Generator = registry.resolve("generator", name)(**arguments)
            pipe.send(("capabilities", generator.capabilities))
        except Exception as error:
            pipe.send(("error", _sendable(error)))
            return
        while True:
            request, images, previews = pipe.recv()
            on_step = _PreviewSender(pipe) if previews else _StepSender(pipe)
            pipe.send(_generate(generator, request, images, on_step))


class _StepSender:
    """Step callback that sends each step to the parent and waits for its consent."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self, done: int, total: int) -> None:
        self._send("step", (done, total))

    def _send(self, kind: str, value: Any) -> None:
        self._pipe.send((kind, value))
        if not self._pipe.recv():
            raise Cancelled("The image was stopped.")


class _PreviewSender(_StepSender):
    """Step callback that sends previews too."""

    def show(self, preview: Image) -> None:
        self._send("preview", pack(preview))


def _generate(
    generator: Generator, request: GenerateRequest, images: Sequence[PackedImage], on_step: OnStep
) -> tuple[str, Any]:
    """Return the message with an image and the offload levels, or with an error."""
    try:
        image = generator.generate(request, [unpack(image) for image in images], on_step)
        levels = tuple(generator.offload_levels) if isinstance(generator, ReportsOffloadLevels) else ()
        return "image", (pack(image), levels)
    except Exception as error:  # the parent handles every error
        return "error", _sendable(error)


def _sendable(error: Exception) -> Exception:
    """Return an error that the parent can unpickle, with our traceback as its note.

    Python's own errors and this program's keep their class; any other becomes a RuntimeError with its text.
    """
    ours = isinstance(error, PleinairError) or type(error).__module__ == "builtins"
    trace = "".join(format_exception(error))
    error.add_note(trace)
    with suppress(Exception):  # a plug-in's own error may not survive pickling
        if ours and _facts(pickle.loads(pickle.dumps(error))) == _facts(error):
            return error
    plain = RuntimeError(f"{type(error).__name__}: {error}")
    plain.add_note(trace)
    return plain


def _facts(error: Exception) -> tuple[Any, ...]:
    """Return what a copy of an error must keep."""
    return error.args, str(error), getattr(error, "remedy", ""), getattr(error, "spent", None)


def pack(image: Image) -> PackedImage:
    """Return mode, size, pixels and cost of an image; one with a palette becomes RGB."""
    plain = image.convert("RGB") if image.mode in ("P", "PA") else image
    return plain.mode, plain.size, plain.tobytes(), spent_on(image)


def unpack(packed: PackedImage) -> Image:
    """Build the image from what `pack` returned."""
    from PIL import Image

    return charged(Image.frombytes(*packed[:3]), packed[3])
