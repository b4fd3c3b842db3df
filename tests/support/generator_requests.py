"""Requests and pictures of 32 × 32 for tests of generators, and ways to watch them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image

from pleinair.tools.callbacks import no_callback
from pleinair.tools.types import Box, Cancelled, GenerateRequest, Generator, Hit, Picture, Reference

SIZE = 32
RADIAL, LINEAR = Image.radial_gradient("L").convert("RGB"), Image.linear_gradient("L").convert("RGB")
REFERENCES = [RADIAL, LINEAR, *(LINEAR.rotate(90 * turn) for turn in range(1, 4)), *(RADIAL,) * 3]


def make_request(**fields: Any) -> GenerateRequest:
    """Ask for a small picture in two steps."""
    given = {"prompt": "a finch", "height": SIZE, "width": SIZE, "num_inference_steps": 2, "seed": 0}
    return GenerateRequest.model_validate({**given, "guidance_scale": 2.0, **fields})


def make_reference(concept: str = "finch", box: Box | None = None) -> Reference:
    """Bind a picture that nobody opens to a concept."""
    hit = Hit(id=f"{concept}.png", score=1.0)
    return Reference(
        concept=concept, hit=hit, picture=Picture(sha256="0" * 64, width=SIZE, height=SIZE), box=box
    )


def draw(generator: Generator, images: Sequence[Image.Image] = (), **fields: Any) -> np.ndarray:
    """Draw a request and give the pixels."""
    return np.asarray(generator.generate(make_request(**fields), images, no_callback))


@contextmanager
def noisy() -> Iterator[None]:
    """Have another thread draw from torch's own noise all the while, as one does that builds a model."""
    done = threading.Event()

    def draw_noise() -> None:
        while not done.is_set():
            torch.rand(1)

    thread = threading.Thread(target=draw_noise)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def stop_after(steps: int, seen: list[tuple[int, int]]) -> Callable[[int, int], None]:
    """Make a step callback that notes what it is told, and stops the picture."""

    def on_step(done: int, total: int) -> None:
        seen.append((done, total))
        if done == steps:
            raise Cancelled("stop")

    return on_step
