"""Encoder for tests of the worker: it encodes at once, or fails as a text, or an image's height, says.

It is installed by entry points, as plug-ins are: the worker's process resolves it by name.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from support.faulty_generator import fail
from support.plugins import install_package
from support.quick_engines import Hashes

from pleinair.tools.realrag import Training

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

ENTRY_POINTS = """
[pleinair.encoder]
faulty = support.faulty_encoder:FaultyEncoder
plain = support.faulty_encoder:Plain
"""
DEADLY = 13  # pixels of the height of an image that ends the process


class FaultyEncoder(Hashes):
    """Encoder that fails as a text says, and logs its process id; with `asleep` the first start hangs."""

    image_side = 64

    def __init__(self, log: str = "", asleep: bool = False) -> None:
        super().__init__("faulty")
        first = bool(log) and not Path(log).exists()
        if log:
            Path(log).write_text(str(os.getpid()), encoding="utf-8")
        if asleep and first:
            time.sleep(600)

    def encode_text(self, texts: Sequence[str]) -> "Vectors":
        for text in texts:
            if text == "hangs":
                time.sleep(600)
            if text == "warns":
                logging.getLogger("pleinair.tools.faulty").warning("truncated: %s", text)
            fail(text)
        return super().encode_text(texts)

    def encode_images(self, images: Sequence[Image.Image]) -> "Vectors":
        if any(image.height == DEADLY for image in images):
            fail("segfault")
        return super().encode_images(images)


class Plain:
    """Encoder with a training, and without patches and a size."""

    id, training = "plain", Training(loss="normal", generator="stripes")
    encode_text, encode_images = Hashes("plain").encode_text, Hashes("plain").encode_images


def install(folder: Path) -> Path:
    """Install the plug-in; return the folder that must be on `sys.path`."""
    return install_package(folder / "plugin", "faulty_encoder", ENTRY_POINTS)
