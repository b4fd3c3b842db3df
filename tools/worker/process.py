"""What goes on in the worker's process: one engine is built, and draws until the parent hangs up."""

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

Flat = tuple[str, tuple[int, int], bytes, Usage]  # mode, (width, height) in pixels, pixels, what it cost


def serve(descriptor: int) -> None:
    """Answer the parent until it hangs up; its first question names the engine, each other is a request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both, and the parent decides
    faulthandler.enable()
    with Connection(descriptor) as pipe, suppress(EOFError, ConnectionError):
        name, arguments = pipe.recv()
        try:
            engine: Generator = registry.resolve("generator", name)(**arguments)
            pipe.send(("capabilities", engine.capabilities))
        except Exception as error:
            pipe.send(("error", _sendable(error)))
            return
        while True:
            request, pictures, watched = pipe.recv()
            pipe.send(answer(engine, request, pictures, Watcher(pipe) if watched else Teller(pipe)))


class Teller:
    """Tell the parent each step, and take it when the parent agrees."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self, done: int, total: int) -> None:
        """Tell a step; raise `Cancelled` when the parent wants no more."""
        self._tell("step", (done, total))

    def _tell(self, kind: str, what: Any) -> None:
        self._pipe.send((kind, what))
        if not self._pipe.recv():
            raise Cancelled("The picture was stopped.")


class Watcher(Teller):
    """Pass previews on too."""

    def show(self, preview: Image) -> None:
        """Tell a preview, in the same way."""
        self._tell("preview", flat(preview))


def answer(
    engine: Generator, request: GenerateRequest, pictures: Sequence[Flat], on_step: OnStep
) -> tuple[str, Any]:
    """Draw a picture, or say why there is none; with a picture, how its model was placed."""
    try:
        picture = engine.generate(request, [whole(picture) for picture in pictures], on_step)
        offload_levels = tuple(engine.offload_levels) if isinstance(engine, ReportsOffloadLevels) else ()
        return "picture", (flat(picture), offload_levels)
    except Exception as error:  # every fault is the parent's to judge
        return "error", _sendable(error)


def _sendable(error: Exception) -> Exception:
    """Give an error that the parent can read, with our traceback as its note.

    Python's own errors and this program's keep their class; of any other, class and text become a text.
    """
    ours = isinstance(error, PleinairError) or type(error).__module__ == "builtins"
    trace = "".join(format_exception(error))
    error.add_note(trace)
    with suppress(Exception):  # a plug-in's own error may lack what a copy takes
        if ours and str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    plain = RuntimeError(f"{type(error).__name__}: {error}")
    plain.add_note(trace)
    return plain


def flat(image: Image) -> Flat:
    """Give mode, size, pixels and cost; the colours of a palette are looked up."""
    plain = image.convert("RGB") if image.mode in ("P", "PA") else image
    return plain.mode, plain.size, plain.tobytes(), spent_on(image)


def whole(picture: Flat) -> Image:
    """Make the picture again."""
    from PIL import Image

    return charged(Image.frombytes(*picture[:3]), picture[3])
