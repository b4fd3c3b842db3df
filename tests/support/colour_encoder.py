"""An encoder whose vectors are mean colours, and libraries of coloured squares for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import Hit

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
ABOUT_RED = {"file_name": "red.png", "text": "a red square", "license": "CC0", "source": "s", "author": "x"}


class ColourEncoder:
    """Encoder of an image by its mean colour and of a word by the colour it names."""

    def __init__(self, id: str = "colour-1") -> None:
        self.id = id
        self.batches: list[int] = []

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        return self._rows([np.asarray(COLOURS[text], float) for text in texts])

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        self.batches.append(len(images))
        return self._rows([np.asarray(image, float).mean(axis=(0, 1)) for image in images])

    def _rows(self, colours: list[Any]) -> Vectors:
        rows = np.stack([np.append(colour / 255, 0.1) for colour in colours])
        unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


class Reddish(ColourEncoder):
    """Encoder that takes every text for "red"."""

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        return super().encode_text(["red" for _ in texts])


def square(colour: tuple[int, int, int]) -> Image.Image:
    """Return a square of a colour with a pixel of another, without which it would be left out as blank."""
    image = Image.new("RGB", (8, 8), colour)
    image.putpixel((7, 7), tuple(level + 3 if level < 128 else level - 3 for level in colour))
    return image


def paint(folder: Path, name: str, colour: tuple[int, int, int]) -> None:
    square(colour).save(folder / name)


def write_squares(folder: Path) -> Path:
    """Write a library of one square a colour with metadata for the red one."""
    folder.mkdir()
    for name, colour in COLOURS.items():
        paint(folder, f"{name}.png", colour)
    (folder / "metadata.jsonl").write_text(json.dumps(ABOUT_RED), encoding="utf-8")
    return folder


def build(folder: Path, index_folder: Path, encoder: ColourEncoder | None = None, **options: Any) -> Index:
    return build_index(Library.open(folder), encoder or ColourEncoder(), index_folder, **options)


def find(folder: Path, index_folder: Path, query: str, k: int = 3) -> list[Hit]:
    encoder = ColourEncoder()
    return IndexRetriever(Library.open(folder), Index.open(index_folder, encoder), encoder).search(query, k)
