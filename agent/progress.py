"""Progress of an image while it is generated: diffusion steps and previews on the custom stream."""

from __future__ import annotations

import base64
import io
from time import perf_counter
from typing import TYPE_CHECKING

from pleinair.tools.callbacks import PreviewCallback, stop_check
from pleinair.tools.deadline import OutOfTime

if TYPE_CHECKING:
    from langgraph.runtime import Runtime
    from PIL.Image import Image

    from pleinair.agent.context import Context

MAX_BYTES = 7_500  # of a preview's PNG; in base64 it is a third longer
_SIDES = (96, 64, 48)  # pixels of a preview's longer side, tried in turn; the last one always fits


def watch(runtime: Runtime[Context], deadline: float) -> StepReporter:
    """Return the callback of one image, which reports its steps and stops it at the deadline.

    It takes previews where the context asks for them or its `on_step` does. A preview is a custom event of
    the stream, {"step": "generate", "preview": PNG in base64}, and never in the state.
    """
    previews = runtime.context.previews or isinstance(runtime.context.on_step, PreviewCallback)
    return PreviewReporter(runtime, deadline) if previews else StepReporter(runtime, deadline)


class StepReporter:
    """Step callback of a generator, with a deadline in seconds of `perf_counter`.

    `began` is when the first step began if the generator reports that: models are loaded before.
    """

    def __init__(self, runtime: Runtime[Context], deadline: float) -> None:
        self._runtime, self._deadline = runtime, deadline
        self.began: float | None = None

    def __call__(self, done: int, total: int) -> None:
        """Report one step; raise what the caller's callback raises, or `OutOfTime`."""
        if self.began is None and not done:
            self.began = perf_counter()
        self._runtime.context.stop.check()
        self._runtime.stream_writer({"step": "generate", "done": done, "total": total})
        self._runtime.context.on_step(done, total)
        self._check_deadline()

    def check(self) -> None:
        """Raise between two steps what a step would raise, if the caller's callback has a `check`."""
        self._runtime.context.stop.check()
        stop_check(self._runtime.context.on_step)()
        self._check_deadline()

    def _check_deadline(self) -> None:
        if perf_counter() > self._deadline:
            raise OutOfTime


class PreviewReporter(StepReporter):
    """Step callback that passes previews on too."""

    def show(self, preview: Image) -> None:
        """Write a preview to the stream and pass it to the caller's callback, where either asks for it."""
        context = self._runtime.context
        if context.previews:
            text = base64.b64encode(small_png(preview)).decode()
            self._runtime.stream_writer({"step": "generate", "preview": text})
        if isinstance(context.on_step, PreviewCallback):
            context.on_step.show(preview)


def small_png(image: Image) -> bytes:
    """Return an image as a PNG of at most 7,500 bytes, made smaller as needed."""
    for side in _SIDES:
        small, file = image.convert("RGB"), io.BytesIO()
        small.thumbnail((side, side))
        small.save(file, "PNG")
        if len(file.getvalue()) <= MAX_BYTES:
            break
    return file.getvalue()
