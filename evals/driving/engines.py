"""Engines whose images do not depend on any model: what an image shows is known, not judged.

The generator renders what its prompt asks for. Rare and novel species are rendered only with a reference that
really shows them, else as their kind's plain look, so that a driver has to retrieve. The library has these
species alone, and is searched by words.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.engines import build
from pleinair.app.parts import Parts
from pleinair.app.paths import Paths
from pleinair.app.settings import load
from pleinair.evals.driving.conversations import Fault
from pleinair.tools.pocket.catalogue.language.prompts import Mention
from pleinair.tools.pocket.catalogue.language.reading import read
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood
from pleinair.tools.pocket.catalogue.library import shown_species, write_library
from pleinair.tools.pocket.catalogue.scenes import SIZE, Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME, Species, plain
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.chat_payload import decode_image
from pleinair.tools.pocket.detector import Detection
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Capabilities, GenerateRequest, Hit, ModelFault, Retriever

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from PIL.Image import Image

    from pleinair.agent.context import Context

LIBRARY: Mapping[str, Any] = {"seed": 7, "size": 632, "tiers": ("rare", "novel")}  # 8 of each species
SURE = 0.98  # probability of a detection, which is always right


class Truth:
    """What each image shows that was rendered, as phrases such as "hoopoe" and "red car"."""

    def __init__(self) -> None:
        self._shown: dict[str, frozenset[str]] = {}

    def record(self, image: Image, phrases: Iterable[str]) -> None:
        """Record what a rendered image shows."""
        self._shown[_digest(image)] = frozenset(phrases)

    def shows(self, image: Image, phrase: str) -> bool:
        """Return whether a rendered image shows all that a phrase names; another image shows nothing."""
        try:
            mentions = read(phrase).request.mentions
        except NotUnderstood:
            return False
        return self._shown.get(_digest(image), frozenset()) >= {phrase_of(mention) for mention in mentions}


def _digest(image: Image) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def phrase_of(mention: Mention) -> str:
    """Return a subject as a concept: without its number and size."""
    return f"{mention.colour} {mention.name}".strip()


class TrueGenerator:
    """Generator that renders its prompt, as far as its references allow; a fault is of the first image.

    A prompt that the world's language cannot read is refused with the language's reason. `faults` counts the
    errors that were injected.
    """

    def __init__(self, truth: Truth, library: Mapping[str, Sequence[str]], fault: Fault) -> None:
        self._truth, self._library, self._fault = truth, library, fault
        self._calls = self.faults = 0
        self.capabilities = Capabilities(
            id="driving-truth", slots=fault.slots, height=SIZE, width=SIZE, num_inference_steps=1,
            guidance_scale=1.0,
        )  # fmt: skip

    def generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: Callable[[int, int], None]
    ) -> Image:
        """Render the image of a request."""
        self._calls += 1
        if self._fault.kind == "generator error" and self._calls == 1:
            self.faults += 1
            raise ModelFault("The generator ran out of memory; the next image may succeed.")
        try:
            wanted = read(request.prompt).request
        except NotUnderstood as refusal:
            raise BadInput(f"{refusal}.") from refusal
        referenced = {name for item in request.references for name in self._species_in(item.hit)}
        mentions = wanted.mentions
        if self._fault.kind == "omission" and self._calls == 1:
            mentions = mentions[:-1]
        looks = [_look(mention, referenced) for mention in mentions]
        subjects = [
            Subject(look, mention.count, mention.size) for look, mention in zip(looks, mentions, strict=True)
        ]
        scene = place_scene(
            random.Random(request.seed), subjects, wanted.relations[: len(mentions) - 1],
            background=wanted.background, light=wanted.light or "day", weather=wanted.weather or "clear",
        )  # fmt: skip
        image = render(scene)
        visible = [m for look, m in zip(looks, mentions, strict=True) if look.name == m.name]
        self._truth.record(image, map(phrase_of, visible))
        return image

    def _species_in(self, hit: Hit) -> Sequence[str]:
        return self._library.get(Path(hit.id).name, ())


def _look(mention: Mention, referenced: set[str]) -> Species:
    """Return how a subject looks: its kind's plain look if it would need a reference and has none."""
    species = BY_NAME.get(mention.name)
    if species is None:
        return plain(mention.name, mention.colour)
    needs_reference = species.tier != "known" and species.name not in referenced
    return plain(species.kind) if needs_reference else species


class NoHits:
    """Retriever that finds nothing."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def open(self, id: str) -> Image:
        """Open an image of the library."""
        return self._retriever.open(id)

    def entries(self) -> Sequence[Hit]:
        """Return all images of the library."""
        return self._retriever.entries()

    def search(self, query: str, k: int) -> list[Hit]:
        """Return no hit."""
        return []


class TruthfulChat(PocketChat):
    """Pocket chat model that critiques by the truth about rendered images, without one by its detector."""

    truth: Any  # a `Truth`, or None

    def detect(self, images: Sequence[bytes], phrases: Sequence[str]) -> list[Detection]:
        """Return a detection for each phrase in the newest image."""
        if self.truth is None:
            return super().detect(images, phrases)
        image = decode_image(images[-1])
        return [Detection(SURE if self.truth.shows(image, phrase) else 1 - SURE) for phrase in phrases]


class Bench:
    """Library, store and truth of an evaluation, in a folder; the library is written on first use."""

    def __init__(self, folder: Path, library: Mapping[str, Any] = LIBRARY) -> None:
        if not (folder / "library").exists():
            write_library(folder / "library", **library)
        self.truth, self._folder = Truth(), folder
        self._shown = shown_species(**library)

    def context(self, model: BaseChatModel, fault: Fault) -> tuple[Context, TrueGenerator]:
        """Build the engines of one conversation."""
        generator = TrueGenerator(self.truth, self._shown, fault)
        overrides = {"library": str(self._folder / "library"), "retrieval.method": "lexical"}
        context = build(
            load("pocket", overrides),
            Paths(self._folder / "home"),
            ArtifactStore(self._folder / "pictures"),
            parts=Parts(model=model, generator=generator),
        )
        if fault.kind == "no hits":
            context = replace(context, retriever=NoHits(context.retriever))
        return context, generator
