"""Cosines of images to prompts, to real images and to each other, and recognition by class names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from math import nan
from typing import TYPE_CHECKING

from pleinair.evals.metrics import Interval
from pleinair.evals.scores.features import Features
from pleinair.evals.scores.items import Generated, OnProgress
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.types import Encoder

COSINE, SHARE, DISTANCE = (-1.0, 1.0), (0.0, 1.0), (0.0, 2.0)
CLASS_PROMPT = "A photo of a {}"  # RealRAG's, section 4.1
_CHUNK = 256  # items whose vectors are in memory at once


class TextSimilarity:
    """Cosine of an image and its prompt: CLIP-T, and with SigLIP's weights ImageRAG's SigLIP score."""

    needs_truth = False
    bounds: Interval = COSINE

    def __init__(self, title: str, encoder: Encoder, features: Features) -> None:
        self.title = title
        self.name = f"{title}, {encoder.id}"
        self._encoder, self._features = encoder, features

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> list[float]:
        """Return each image's cosine, as it is: neither scaled by 100 nor cut off at 0."""
        self._features.add([item.image for item in items], on_progress)
        values: list[float] = []
        for start in range(0, len(items), _CHUNK):
            some = items[start : start + _CHUNK]
            texts = self._encoder.encode_text([item.prompt for item in some])
            values += (self._features.rows([item.image for item in some]) * texts).sum(axis=1).tolist()
        return values


class ImageSimilarity:
    """Mean cosine of an image and its real images: CLIP-I, DINO, and Cross-modal RAG's three scores."""

    needs_truth = True
    bounds: Interval = COSINE

    def __init__(self, title: str, features: Features) -> None:
        self.title = title
        self.name = f"{title}, {features.encoder.id}"
        self._features = features

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> list[float]:
        """Return each image's mean cosine; a real image is embedded once, however often it is compared."""
        truth = dict.fromkeys(chain.from_iterable(item.truth for item in items))
        self._features.add([*truth, *(item.image for item in items)], on_progress)
        return [
            float(self._features.rows([item.image])[0] @ self._features.mean(item.truth)) for item in items
        ]


class Recognition:
    """Share of images whose class name is the nearest of all: RealRAG's accuracy by zero-shot CLIP.

    The class of an image is its group, and every name is compared in RealRAG's prompt.
    """

    title = "accuracy"
    needs_truth = False
    bounds: Interval = SHARE

    def __init__(self, encoder: Encoder, features: Features, classes: Sequence[str] = ()) -> None:
        """Store the names of all classes; without them those of the images, which makes it easier."""
        self.name = f"{self.title}, {encoder.id}"
        self._encoder, self._features, self._classes = encoder, features, classes
        self.note = ""

    def check(self, items: Sequence[Generated]) -> None:
        """Raise `BadInput` for images without a class, or of fewer than two classes in all."""
        groups = {item.group for item in items}
        if "" in groups or len({*groups, *self._classes}) < 2:
            raise BadInput(
                f"{self.name}: the images have {len(groups - {''})} classes; use at least 2.",
                "Compare with real images in folders by class, or leave this score out.",
            )

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> list[float]:
        """Return 1.0 for each image that is recognised, else 0.0."""
        self._features.add([item.image for item in items], on_progress)
        names = list(dict.fromkeys((*self._classes, *(item.group for item in items))))
        self.note = f"of {len(names)} classes"
        texts = self._encoder.encode_text([CLASS_PROMPT.format(name) for name in names])
        rows = self._features.stream([item.image for item in items])
        nearest = [place for vectors in rows for place in (vectors @ texts.T).argmax(axis=1)]
        return [float(names[place] == item.group) for place, item in zip(nearest, items, strict=True)]


class Diversity:
    """Mean of 1 - cosine over all pairs of images of one prompt: 0 if all are the same image.

    An image's value is its mean over the others of its prompt; the only image of a prompt has none.
    """

    title = "diversity"
    needs_truth = False
    bounds: Interval = DISTANCE

    def __init__(self, features: Features) -> None:
        self.name = f"{self.title}, {features.encoder.id}"
        self._features = features

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> list[float]:
        """Return each image's mean distance to the others of its prompt, NaN where there are none."""
        self._features.add([item.image for item in items], on_progress)
        by_prompt: dict[str, list[int]] = defaultdict(list)
        for place, item in enumerate(items):
            by_prompt[item.prompt].append(place)
        values = [nan] * len(items)
        for places in by_prompt.values():
            if len(places) > 1:
                vectors = self._features.rows([items[place].image for place in places])
                others = (vectors @ vectors.sum(axis=0) - (vectors * vectors).sum(axis=1)) / (len(places) - 1)
                for place, cosine in zip(places, others, strict=True):
                    values[place] = 1 - float(cosine)
        return values
