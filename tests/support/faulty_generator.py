"""Generator for tests of the worker: it generates at once, or fails as the prompt says.

It is installed by entry points, as plug-ins are: the worker's process resolves it by name.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageChops
from support.plugins import install_package

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
ENTRY_POINTS = "[pleinair.generator]\nfaulty = support.faulty_generator:FaultyGenerator\n"


class Unpicklable(PleinairError):
    """Error that cannot be unpickled: its class takes two arguments and passes on one."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}, {why}")


class Foreign(Exception):
    """Error of a plug-in's own class."""


ERRORS = (
    BadInput("seed -1: wanted 0 or more", "Choose another seed."),
    Refused("no swans"),
    ModelFault("overflowed at step 3"),
    Cancelled("not today"),
    RuntimeError("a bug"),
    KeyError("a key"),
)


class FaultyGenerator:
    """Generator of a pattern that depends on the request; at the second step it does what the prompt says."""

    def __init__(self, log: str = "", fault: str = "", pause: float = 0.0) -> None:
        if fault == "exit":
            os._exit(3)
        if fault == "asleep":
            time.sleep(600)
        if fault:
            raise BadInput(f"generator.fault = {fault!r}: wanted none")
        self.log, self.pause, self.offload_levels = log, pause, ["whole"]
        self.capabilities = Capabilities(
            id="faulty:1", slots=2, height=SIZE, width=SIZE, num_inference_steps=STEPS, guidance_scale=1.0
        )

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.note(f"begin {os.getpid()}")
        if request.prompt == "loads for ever":
            time.sleep(600)
        for step in range(STEPS):
            if step == 1:
                fail(request.prompt)
            time.sleep(self.pause)
            call_back(request.prompt, on_step, step + 1)
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


def call_back(prompt: str, on_step: Callable[[int, int], None], done: int) -> None:
    """Report a step; "deaf" ignores a stop, "lost" hangs at one, "hangs" hangs at the second step."""
    if prompt == "hangs" and done == 2:
        time.sleep(600)
    try:
        on_step(done, STEPS)
    except Cancelled:
        if prompt == "deaf":
            while True:
                time.sleep(0.01)
                call_back("swallow", on_step, done)
        if prompt == "lost":
            time.sleep(600)
        if prompt != "swallow":
            raise


def fail(kind: str) -> None:
    """End the process or raise an error, if the word is one for that."""
    if kind.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, kind))
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "exit":
        raise SystemExit(5)
    if kind == "unpicklable":
        raise Unpicklable("two", "arguments")
    if kind == "foreign":
        raise Foreign("unknown class")
    if kind == "paid":
        refusal = Refused("no, thank you")
        refusal.spent = Usage(images=1, usd=0.25)
        raise refusal
    if kind.isdigit():
        raise ERRORS[int(kind)]


def paint(seed: int, images: Sequence[Image.Image]) -> Image.Image:
    """Mix a pattern of the seed with the references."""
    pattern = Image.linear_gradient("L").resize((SIZE, SIZE)).convert("RGB")
    pattern.paste((seed % 256, 90, 20), (4, 4, 12, 12))
    for image in images:
        pattern = ImageChops.add_modulo(pattern, image.convert("RGB").resize((SIZE, SIZE)))
    return pattern


def install(folder: Path) -> Path:
    """Install the plug-in; return the folder that must be on `sys.path`."""
    return install_package(folder / "plugin", "faulty", ENTRY_POINTS)
