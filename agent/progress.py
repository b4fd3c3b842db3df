"""What is told of a picture while it is drawn: its steps, and previews where somebody wants them."""

from __future__ import annotations

import base64
import io
from time import perf_counter
from typing import TYPE_CHECKING

from pleinair.tools.callbacks import PreviewCallback, ReportsOffloadLevels, stop_check
from pleinair.tools.types import Generator, PleinairError

if TYPE_CHECKING:
    from langgraph.runtime import Runtime
    from PIL.Image import Image

    from pleinair.agent.context import Context

MOST = 7_500  # bytes of a preview's PNG; as text in a stream it is a third longer
SIDES = (96, 64, 48)  # pixels that a preview is tried at; the last one fits whatever it shows


class OutOfTime(PleinairError):
    """The run's seconds were used up in the middle of a step."""


def watch(runtime: Runtime[Context], deadline: float) -> Steps:
    """Report each diffusion step, and stop the picture at the caller's word or the deadline.

    Where the context asks for previews, or its `on_step` is a viewer, what is given is a viewer. A preview
    is a custom event of the stream, {"step": "generate", "preview": PNG in base64}, and never in the state.
    """
    wanted = runtime.context.previews or isinstance(runtime.context.on_step, PreviewCallback)
    return Sight(runtime, deadline) if wanted else Steps(runtime, deadline)


class Steps:
    """Tell steps; `began` is when the first was begun, as far as the engine tells: models load before it."""

    def __init__(self, runtime: Runtime[Context], deadline: float) -> None:
        self._runtime, self._deadline = runtime, deadline
        self.began: float | None = None

    def __call__(self, done: int, total: int) -> None:
        """Tell one step; raise what the caller raises, or `OutOfTime`."""
        if self.began is None and not done:
            self.began = perf_counter()
        self._runtime.stream_writer({"step": "generate", "done": done, "total": total})
        self._runtime.context.on_step(done, total)
        self._look_at_the_clock()

    def check(self) -> None:
        """Raise between two steps what would be raised at one, as far as the caller can be asked there."""
        stop_check(self._runtime.context.on_step)()
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        if perf_counter() > self._deadline:
            raise OutOfTime("The run's seconds are used up.")


class Sight(Steps):
    """Tell steps and show previews."""

    def show(self, preview: Image) -> None:
        """Show a preview to whoever wants it."""
        context = self._runtime.context
        if context.previews:
            text = base64.b64encode(small_png(preview)).decode()
            self._runtime.stream_writer({"step": "generate", "preview": text})
        if isinstance(context.on_step, PreviewCallback):
            context.on_step.show(preview)


def offload_levels_of(generator: Generator) -> tuple[str, ...]:
    """Give the ways in which a generator's model was placed, the last one drew; none where it tells none."""
    return tuple(generator.offload_levels) if isinstance(generator, ReportsOffloadLevels) else ()


def small_png(image: Image) -> bytes:
    """Write a picture as a PNG of at most 7,500 bytes, smaller where it must be."""
    for side in SIDES:
        small, file = image.convert("RGB"), io.BytesIO()
        small.thumbnail((side, side))
        small.save(file, "PNG")
        if len(file.getvalue()) <= MOST:
            break
    return file.getvalue()
