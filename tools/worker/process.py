"""The worker's child process: it builds one part and answers calls of it until the parent closes the pipe."""

from __future__ import annotations

import faulthandler
import logging
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from traceback import format_exception
from typing import TYPE_CHECKING, Any, NamedTuple

from pleinair.tools import registry
from pleinair.tools.callbacks import ReportsOffloadLevels
from pleinair.tools.realrag import Training, training_of
from pleinair.tools.storage.artifacts import charged, original_of, spent_on, with_original
from pleinair.tools.types import (
    BatchGenerator,
    Cancelled,
    GenerateRequest,
    Generator,
    OnStep,
    PleinairError,
    Usage,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Features, Vectors

# mode, (width, height), pixels, what it cost, the signed bytes in which it was received
PackedImage = tuple[str, tuple[int, int], bytes, Usage, bytes]


class EncoderFacts(NamedTuple):
    """What an encoder says of itself beside its vectors."""

    id: str
    image_side: int  # pixels; 0 if it does not say
    training: Training | None
    has_patches: bool
    device: str  # of torch
    jpeg_decoder: str  # of the files of a library that is indexed


def serve(descriptor: int) -> None:
    """Answer the parent until it closes the pipe: first kind, name and arguments of a part, then calls."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both, and the parent decides
    faulthandler.enable()
    with Connection(descriptor) as pipe, suppress(EOFError, ConnectionError):
        logging.getLogger("pleinair").addHandler(_LogSender(pipe))
        kind, name, arguments = pipe.recv()
        try:
            part = registry.resolve(kind, name)(**arguments)
            pipe.send(("facts", part.capabilities if kind == "generator" else facts_of(part)))
        except Exception as error:
            pipe.send(("error", sendable(error)))
            return
        call = _generate if kind == "generator" else _encode
        while True:
            pipe.send(_answer(call, pipe, part, *pipe.recv()))


def _answer(call: Callable[..., Any], *values: Any) -> tuple[str, Any]:
    try:
        return "answer", call(*values)
    except Exception as error:  # the parent handles every error
        return "error", sendable(error)


class _LogSender(logging.Handler):
    """Handler that sends records to the parent, which logs them; only the main thread uses the pipe."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread() is threading.main_thread():
            self._pipe.send(("log", (record.name, record.levelno, record.getMessage())))


def facts_of(encoder: Any) -> EncoderFacts:
    """Return what an encoder says of itself."""
    side, has_patches = getattr(encoder, "image_side", 0), hasattr(encoder, "encode_patches")
    device = getattr(encoder, "device", "cpu")
    decoder = getattr(encoder, "jpeg_decoder", "sandbox")
    return EncoderFacts(encoder.id, side, training_of(encoder), has_patches, device, decoder)


def _encode(_: Connection, encoder: Any, method: str, items: Sequence[Any]) -> Vectors | Features:
    rows: Vectors = getattr(encoder, method)(items if method == "encode_text" else [*map(unpack, items)])
    return rows


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
    pipe: Connection,
    generator: Generator,
    request: GenerateRequest,
    images: Sequence[PackedImage],
    previews: bool,
    seeds: Sequence[int] = (),
) -> tuple[list[PackedImage], tuple[str, ...]]:
    """Return an image, perhaps those of further seeds, and the offload levels."""
    on_step: OnStep = _PreviewSender(pipe) if previews else _StepSender(pipe)
    if seeds and isinstance(generator, BatchGenerator):
        results = generator.generate_batch(request, seeds, on_step)
    else:
        results = [generator.generate(request, [unpack(image) for image in images], on_step)]
    levels = tuple(generator.offload_levels) if isinstance(generator, ReportsOffloadLevels) else ()
    return [*map(pack, results)], levels


def sendable(error: Exception) -> Exception:
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
    """Return an image with its cost and its original for the pipe; one with a palette becomes RGB."""
    plain = image.convert("RGB") if image.mode in ("P", "PA") else image
    return plain.mode, plain.size, plain.tobytes(), spent_on(image), original_of(image)


def unpack(packed: PackedImage) -> Image:
    """Build the image from what `pack` returned."""
    from PIL import Image

    mode, size, pixels, spent, original = packed
    return with_original(charged(Image.frombytes(mode, size, pixels), spent), original)
