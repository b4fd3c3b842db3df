"""Trainings of a reflective retriever on a small library of colours, whose names the encoder misreads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from support.colour_encoder import COLOURS, ColourEncoder, paint
from support.fake_engines import SquareGenerator

from pleinair.tools.realrag import Sampling
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.realrag.data import TrainingSet, build_training_set, generate_samples
from pleinair.tools.retrieval.realrag.pairs import pairs_by_folder
from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions, TrainingConfig
from pleinair.tools.retrieval.realrag.training import train
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import GenerateRequest

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

LOOKS = {"crimson": "red", "emerald": "green", "azure": "blue"}
MISREAD = {"crimson": (20, 255, 0), "emerald": (0, 20, 255), "azure": (255, 0, 20)}  # by the frozen encoder


class WordEncoder(ColourEncoder):
    """Encoder of a text by the colour of its last word, which is wrong for three words."""

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        colours = COLOURS | MISREAD
        return self._rows([np.asarray(colours[text.split()[-1]], float) for text in texts])


class BlueGenerator(SquareGenerator):
    """Generator of blue images, slightly different for every prompt."""

    def generate(self, request: GenerateRequest, *rest: Any) -> Image.Image:
        grey = super().generate(request, *rest).getchannel(0)
        tint = grey.point(lambda value: value // 8 + sum(request.prompt.encode()) % 50)
        return Image.merge("RGB", (Image.new("L", grey.size), tint, Image.new("L", grey.size, 255)))


class ConfusedGenerator(SquareGenerator):
    """Generator whose fault is another one for every name: it draws the look of the next one."""

    def generate(self, request: GenerateRequest, *rest: Any) -> Image.Image:
        grey = super().generate(request, *rest)
        names = list(LOOKS)
        fault = names[(names.index(request.prompt.split()[-1]) + 1) % len(names)]
        return Image.blend(grey, Image.new("RGB", grey.size, COLOURS[LOOKS[fault]]), 0.9)


def write_looks(folder: Path) -> None:
    """Write a library of three classes in folders with their names, three images of a colour each."""
    for name, look in LOOKS.items():
        (folder / name).mkdir(parents=True)
        for number in range(3):
            red, green, blue = COLOURS[look]
            colour = (abs(red - 20 * number), abs(green - 20 * number), abs(blue - 20 * number))
            paint(folder / name, f"{number}.png", colour)


class Bench:
    """A small library with its index, samples of a generator, and trainings on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.encoder = folder, WordEncoder()
        self.generator: SquareGenerator = BlueGenerator()
        self.store = ArtifactStore(folder / "samples")
        self.library = folder / "library"
        write_looks(self.library)

    @property
    def index(self) -> Index:
        return build_index(Library.open(self.library), self.encoder, self.folder / "index")

    def training_set(self, **changes: Any) -> TrainingSet:
        pairs = pairs_by_folder(Library.open(self.library).items.values())
        options = ReflectiveOptions(**changes)
        samples = generate_samples(
            list(dict.fromkeys(pair.prompt for pair in pairs)),
            generator=self.generator,
            sampling=Sampling.of(self.generator.capabilities),
            store=self.store,
            each=options.samples,
            on_progress=lambda done, total: None,
        )
        return build_training_set(
            pairs,
            samples if options.loss == "reflective" else [],
            index=self.index,
            encoder=self.encoder,
            store=self.store,
            options=options,
        )

    def config(self, training_set: TrainingSet, **changes: Any) -> TrainingConfig:
        return TrainingConfig(
            choices=ReflectiveOptions(**changes),
            generator=self.generator.capabilities.id,
            sampling=Sampling.of(self.generator.capabilities),
            encoder=self.encoder.id,
            engine="words",
            dim=training_set.pool.shape[1],
            lesson=training_set.digest,
        )

    def train(self, out: str, **changes: Any) -> Path:
        training_set, folder = self.training_set(**changes), self.folder / out
        list(train(training_set, self.config(training_set, **changes), folder))
        return folder
