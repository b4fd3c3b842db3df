"""Fast fake engines for tests of whole runs, installed like plug-ins by entry points.

Everything else is real: registry, library, index, store, graphs, checkpoints.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from PIL import Image
from support.fake_engines import ScriptedChat, decomposition, rows
from support.plugins import install_package

from pleinair.tools.callbacks import PreviewCallback
from pleinair.tools.storage.artifacts import charged
from pleinair.tools.types import Capabilities, GenerateRequest, Usage

if TYPE_CHECKING:
    from pleinair.tools.types import Features, Vectors

SIZE = 16  # pixels
STEPS = 3
ALONE = (1, 1, 1)  # colour of the corner of an image without references

ENTRY_POINTS = """
[pleinair.generator]
quick = support.quick_engines:Stripes
confused = support.retriever_trainings:ConfusedGenerator
[pleinair.encoder]
quick = support.quick_engines:Hashes
reddish = support.colour_encoder:Reddish
words = support.retriever_trainings:WordEncoder
[pleinair.mllm]
quick = support.quick_engines:critic
talker = support.fake_driver:talker
"""


class Stripes:
    """Generator of two colours: one from the request's seed, one from its references.

    When it inpaints, only the second colour is painted into the input image.
    """

    def __init__(
        self,
        pause: float = 0.0,
        fault: str = "",
        inpaint: bool = False,
        usd: float = 0.0,
        max_pixels: int | None = None,
        placeholders: bool = False,
    ) -> None:
        self.pause, self.fault, self.usd = pause, fault, usd
        self.capabilities = Capabilities(
            id="stripes",
            slots=2,
            inpaint=inpaint,
            inpaint_slots=2 * inpaint,
            placeholders=placeholders,
            height=SIZE,
            width=SIZE,
            max_pixels=max_pixels,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
        )

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        for step in range(STEPS):
            time.sleep(self.pause)
            on_step(step + 1, STEPS)
            if isinstance(on_step, PreviewCallback):
                on_step.show(Image.new("RGB", (4, 4), colour(f"preview {step}")))
        if self.fault:
            raise RuntimeError(self.fault)
        note(f"picture {request.seed} {len(images)}")
        image = Image.new("RGB", (SIZE, SIZE), colour(str(request.seed)))
        if request.inpaint:
            *images, image = images
            image = image.copy()
        corner = images[0].getpixel((0, 0)) if images else ALONE
        image.paste(corner, (0, 0, SIZE // 2, SIZE // 2))  # type: ignore[arg-type]
        return charged(image, Usage(usd=self.usd))


class Hashes:
    """Encoder of texts and images by hashes of their bytes and a salt: meaningless, but deterministic."""

    def __init__(self, salt: str = "") -> None:
        self.id, self.salt = f"hashes{salt}", salt.encode()

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        return np.stack([unit(text.encode() + self.salt) for text in texts])

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        return np.stack([unit(_without_speck(image).tobytes() + self.salt) for image in images])

    def encode_patches(self, images: Sequence[Image.Image]) -> Features:
        corners = [image.crop((x, y, x + 1, y + 1)) for image in images for x in (0, 8) for y in (0, 8)]
        patches: Features = self.encode_images(corners).reshape(len(images), 4, -1)
        return patches


class Critic(ScriptedChat):
    """Critic that finds the second concept once a reference was used, or never, or replies with prose."""

    pause: float = 0.0
    satisfied: bool = True
    says: str = ""
    box: list[float] | None = None  # of the missing concept

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        time.sleep(self.pause)
        note("question")
        second = self.satisfied and shows_reference(messages)
        self.policy = lambda schema, payload, images: self.says or answer(schema, payload, second, self.box)
        return super()._generate(messages)


def critic(
    pause: float = 0.0, satisfied: bool = True, says: str = "", box: list[float] | None = None
) -> Critic:
    """Build a critic from values that a profile can have."""
    return Critic(policy=lambda *_: "", schemas=[], pause=pause, satisfied=satisfied, says=says, box=box)


def answer(
    schema: str, payload: dict[str, Any], second: bool, box: list[float] | None = None
) -> dict[str, Any]:
    """Answer a schema; the first concept is always present."""
    if schema == "Decomposition":
        return decomposition("first <b>thing</b>", "second thing")
    if schema == "SubQueries":
        return {"subqueries": payload["prompt"].split(" and ")}
    if schema == "Decision":
        return {"match": second, "why": "a reference shows" if second else "no reference shows"}
    if schema == "MissingConcepts":
        return {"concepts": ["second thing"]}
    if schema == "Captions":
        return {"captions": [{"name": name, "caption": f"a photo of {name}"} for name in payload["concepts"]]}
    if schema == "PictureCaption":
        return {"caption": "a square with a speck"}
    judged = rows(payload, lambda name: second or name.startswith("first"))
    for row in judged["rows"]:
        row |= {"box": box} if row["status"] == "missing" else {}
    return judged


def shows_reference(messages: Sequence[BaseMessage]) -> bool:
    """Return whether the last image of the messages was generated from a reference."""
    block = messages[-1].content[-1]
    if not isinstance(block, dict) or block["type"] != "image":
        return False
    with Image.open(io.BytesIO(base64.b64decode(block["base64"]))) as image:
        return image.getpixel((0, 0)) != ALONE


def colour(text: str) -> tuple[int, int, int]:
    """Return the colour of a text."""
    red, green, blue = hashlib.sha256(text.encode()).digest()[:3]
    return red, green, blue


def speckled(side: int, colour: tuple[int, int, int]) -> Image.Image:
    """Return a square of a colour with a grey pixel, without which an index would leave it out as blank."""
    image = Image.new("RGB", (side, side), colour)
    image.putpixel((side - 1, side - 1), (128, 128, 128))
    return image


def _without_speck(image: Image.Image) -> Image.Image:
    """Return a copy whose last pixel is as the one before, or the image if it has a single one."""
    if image.width < 2:
        return image
    copy, (x, y) = image.copy(), (image.width - 1, image.height - 1)
    copy.putpixel((x, y), copy.getpixel((x - 1, y)) or 0)
    return copy


def unit(data: bytes) -> Any:
    """Return the unit vector of bytes."""
    digest = np.frombuffer(hashlib.sha512(data).digest(), np.uint8).astype(np.float32) - 127.5
    return digest / np.linalg.norm(digest)


def note(line: str) -> None:
    """Write an effect into the log that a test counts, if QUICK_LOG is set."""
    if path := os.environ.get("QUICK_LOG"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def write_library(folder: Path) -> None:
    """Write a library of six small images."""
    folder.mkdir(parents=True)
    lines = []
    for number in range(6):
        speckled(SIZE, colour(f"library {number}")).save(folder / f"{number}.png")
        facts = {
            "license": "CC0-1.0",
            "source": f"https://example.org/{number}?a=1&b=2",
            "author": "<i>Nobody</i>",
        }
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"picture {number}", **facts}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def install(folder: Path) -> dict[str, str]:
    """Write a home, a library and a plug-in into a folder; return the environment that uses them.

    The plug-in folder, the first of PYTHONPATH, must also be on `sys.path` to be found in this process.
    """
    site = install_package(folder / "plugin", "quick", ENTRY_POINTS)
    write_library(folder / "library")
    return {
        "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[1])]),
        "PLEINAIR_HOME": str(folder / "home"),
        "PLEINAIR_PATHS__OUT": str(folder / "out"),
        "PLEINAIR_LIBRARY__FOLDER": str(folder / "library"),
        "PLEINAIR_GENERATOR__BACKEND": "quick",
        "PLEINAIR_ENCODER__BACKEND": "quick",
        "PLEINAIR_CROSSMODAL__ADAPTOR": "",  # the profile's adaptor belongs to its own encoder
        "PLEINAIR_MLLM__BACKEND": "quick",
        "PLEINAIR_RETRIEVAL__THRESHOLD": "-1",
        "XDG_CONFIG_HOME": str(folder / "config"),
        "QUICK_LOG": str(folder / "effects.log"),
    }
