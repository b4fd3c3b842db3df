"""A generator for tests of the worker: it draws at once, or does what the prompt says, however bad.

It is installed by entry points, as a third party's engine is: the worker's process finds it by its name.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageChops

from pleinair.tools.callbacks import PreviewCallback
from pleinair.tools.types import (
    BadInput,
    Cancelled,
    Capabilities,
    GenerateRequest,
    ModelFault,
    PleinairError,
    Refused,
    Usage,
)

SIZE = 32  # pixels
STEPS = 4
ENTRY_POINTS = "[pleinair.generator]\nperils = support.faulty_generator:Perils\n"


class Odd(PleinairError):
    """An error that no copy can be made of: its class wants two arguments and keeps one."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}, {why}")


class Foreign(Exception):
    """An error of somebody's own, which the caller need not know."""


FAULTS = (
    BadInput("seed -1: wanted 0 or more", "Choose another seed."),
    Refused("no swans"),
    ModelFault("overflowed at step 3"),
    Cancelled("not today"),
    RuntimeError("a bug"),
    KeyError("a key"),
)


class Perils:
    """Draw noise that follows from the request; at the second step, do what the prompt says."""

    def __init__(self, log: str = "", fault: str = "", pause: float = 0.0) -> None:
        if fault == "exit":
            os._exit(3)
        if fault == "asleep":
            time.sleep(600)
        if fault:
            raise BadInput(f"generator.fault = {fault!r}: wanted none")
        self.log, self.pause, self.offload_levels = log, pause, ["whole"]
        self.capabilities = Capabilities(
            id="perils:1", slots=2, height=SIZE, width=SIZE, num_inference_steps=STEPS, guidance_scale=1.0
        )

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.note(f"begin {os.getpid()}")
        if request.prompt == "loads for ever":
            time.sleep(600)
        for step in range(STEPS):
            if step == 1:
                happen(request.prompt)
            time.sleep(self.pause)
            step_on(request.prompt, on_step, step + 1)
            if isinstance(on_step, PreviewCallback):
                self.note(f"show {os.getpid()}")
                on_step.show(Image.new("RGB", (4, 2), (step, 0, 0)))
        if request.prompt == "large":
            self.offload_levels.append("vae_tiling")
        self.note(f"end {os.getpid()}")
        return paint(request.seed, images)

    def note(self, line: str) -> None:
        if self.log:
            with Path(self.log).open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def step_on(prompt: str, on_step: Callable[[int, int], None], done: int) -> None:
    """Tell a step; the deaf engine will not be stopped, the lost one hangs when it is, one hangs before."""
    if prompt == "hangs" and done == 2:
        time.sleep(600)
    try:
        on_step(done, STEPS)
    except Cancelled:
        if prompt == "deaf":
            while True:
                time.sleep(0.01)
                step_on("swallow", on_step, done)
        if prompt == "lost":
            time.sleep(600)
        if prompt != "swallow":
            raise


def happen(peril: str) -> None:
    """Do what the word says, if it says something."""
    if peril.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, peril))
    if peril == "segfault":
        ctypes.string_at(0)
    if peril == "exit":
        raise SystemExit(5)
    if peril == "odd":
        raise Odd("odd", "as told")
    if peril == "foreign":
        raise Foreign("unheard of")
    if peril == "paid":
        refusal = Refused("no, thank you")
        refusal.spent = Usage(images=1, usd=0.25)
        raise refusal
    if peril.isdigit():
        raise FAULTS[int(peril)]


def paint(seed: int, images: Sequence[Image.Image]) -> Image.Image:
    """Mix a pattern of the seed with the references."""
    picture = Image.linear_gradient("L").resize((SIZE, SIZE)).convert("RGB")
    picture.paste((seed % 256, 90, 20), (4, 4, 12, 12))
    for image in images:
        picture = ImageChops.add_modulo(picture, image.convert("RGB").resize((SIZE, SIZE)))
    return picture


def install(folder: Path) -> Path:
    """Make the plug-in's packaging in a folder; give the folder that must be on `sys.path`."""
    info = folder / "plugin" / "perils-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: perils\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    return info.parent
