"""Requests and images of 32 × 32 for tests of generators, and step callbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from pleinair.tools.callbacks import no_callback
from pleinair.tools.types import Box, Cancelled, GenerateRequest, Generator, Hit, Picture, Reference

if TYPE_CHECKING:
    from pleinair.tools.diffusion.engine import DiffusersEngine

SIZE = 32
RADIAL, LINEAR = Image.radial_gradient("L").convert("RGB"), Image.linear_gradient("L").convert("RGB")
REFERENCES = [RADIAL, LINEAR, *(LINEAR.rotate(90 * turn) for turn in range(1, 4)), *(RADIAL,) * 3]


def make_request(**fields: Any) -> GenerateRequest:
    """Return a request for a small image in two steps."""
    defaults = {"prompt": "a finch", "height": SIZE, "width": SIZE, "num_inference_steps": 2, "seed": 0}
    return GenerateRequest.model_validate({**defaults, "guidance_scale": 2.0, **fields})


def make_reference(concept: str = "finch", box: Box | None = None) -> Reference:
    """Return a reference for a concept to an image that is not in any store."""
    hit = Hit(id=f"{concept}.png", score=1.0)
    return Reference(
        concept=concept, hit=hit, picture=Picture(sha256="0" * 64, width=SIZE, height=SIZE), box=box
    )


def draw(generator: Generator, images: Sequence[Image.Image] = (), **fields: Any) -> np.ndarray:
    """Generate an image and return its pixels."""
    return np.asarray(generator.generate(make_request(**fields), images, no_callback))


def loaded_pipeline(engine: DiffusersEngine) -> Any:
    """Return the pipeline that an engine has loaded."""
    return engine._pipelines[engine.settings.pipeline]


def change_settings(engine: DiffusersEngine, **changes: Any) -> None:
    """Change settings of an engine that is already built."""
    engine.settings = engine.settings.model_copy(update=changes)


@contextmanager
def noise_from_another_thread() -> Iterator[None]:
    """Let another thread consume torch's global noise, as one does that builds a model."""
    done = threading.Event()

    def consume() -> None:
        while not done.is_set():
            torch.rand(1)

    thread = threading.Thread(target=consume)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def stop_after(steps: int, calls: list[tuple[int, int]]) -> Callable[[int, int], None]:
    """Return a step callback that records its calls and stops after some steps."""

    def on_step(done: int, total: int) -> None:
        calls.append((done, total))
        if done == steps:
            raise Cancelled("stop")

    return on_step
