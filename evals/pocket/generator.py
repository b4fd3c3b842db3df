"""Measure the pocket generator: what the oracle finds in its images, its autoencoder, its time and its size.

References are in the order in which the prompt names their subjects, as the graphs hand them over, and show
their species alone, by day. Not covered: counts, sizes and colours in prompts, the relation of two subjects,
another order of references, wrong references.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pleinair.evals.metrics import interval_of_share
from pleinair.evals.pocket.oracle import Oracle
from pleinair.tools.diffusion.in_context import load
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.catalogue.language.prompts import request_of, write_prompt
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import Scene, Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.pocket.training.autoencoder import mean_absolute_error
from pleinair.tools.pocket.training.card import Figures
from pleinair.tools.pocket.training.cases import held_out_rng

FIRST_GENERATOR = SHIPPED / "generator"  # of the first world, to whose time this one's is compared
FIRST_INDEX = 500_000  # of the held-out cases
ERROR_IMAGES, TIMED_PAIRS = 60, 15  # at most
BY_TIER = {tier: [s for s in SPECIES if s.tier == tier] for tier in ("known", "rare", "novel")}
Case = tuple[list[Species], list[Species]]  # the prompt's species, those with a reference
DrawCase = Callable[[random.Random], Case]


def _single(tier: str, *, referenced: bool) -> DrawCase:
    def draw(rng: random.Random) -> Case:
        species = [rng.choice(BY_TIER[tier])]
        return species, species if referenced else []

    return draw


def _with_known(count: int) -> DrawCase:
    """Draw a rare species with a reference among so many known ones."""

    def draw(rng: random.Random) -> Case:
        rare = rng.choice(BY_TIER["rare"])
        species = [rare, *rng.sample(BY_TIER["known"], count)]
        return rng.sample(species, len(species)), [rare]

    return draw


CASES: Mapping[str, tuple[DrawCase, str]] = {  # and the bar
    "known species by name": (_single("known", referenced=False), ">= .90"),
    "rare species by name, no reference": (_single("rare", referenced=False), "<= .15"),
    "rare species, one reference": (_single("rare", referenced=True), ">= .88"),
    "novel species, one reference": (_single("novel", referenced=True), ">= .88"),
    "two species, one of them rare with a reference, both right": (_with_known(1), ">= .80"),
    "three species, one of them rare with a reference, all right": (_with_known(2), ">= .60"),
}


@dataclass(frozen=True, slots=True)
class _Item:
    scene: Scene  # what the prompt asks for
    prompt: str
    references: Sequence[Image.Image]


def measure_generator(folder: Path, each: int) -> tuple[Figures, str]:
    """Return the figures of the generator in `folder`/generator, with `each` images a case, and their count.

    A share is that of the images in which the oracle finds every species of the prompt, with its exact 95 %
    interval, and beside it that of true renders of the same scenes.
    """
    pipeline, settings = _load(folder / "generator")
    oracle, figures = Oracle(), {}
    error = mean_absolute_error(pipeline.vae, min(each, ERROR_IMAGES))
    figures["autoencoder, mean absolute error"] = f"{error:.2f} / 255", "<= 2.5 / 255"
    seconds = 0.0
    for name, (draw_case, bar) in CASES.items():
        items = [_draw_item(draw_case, index) for index in range(each)]
        began = time.perf_counter()
        images = [
            _generate(pipeline, item.prompt, item.references, index, **settings)
            for index, item in enumerate(items)
        ]
        seconds += time.perf_counter() - began
        right = sum(_shows(oracle, image, item) for image, item in zip(images, items, strict=True))
        renders = sum(_shows(oracle, render(item.scene), item) for item in items)
        figures[name] = f"{share_text(right, each)}; true renders {renders / each:.3f}", bar
    figures["seconds an image"] = f"{seconds / (each * len(CASES)):.2f}", "<= 2"
    ratio = _time_ratio(pipeline, settings, min(each, TIMED_PAIRS))
    figures["denoising time / the first world's"] = f"{ratio:.1f}", "<= 4"
    megabytes = sum(path.stat().st_size for path in SHIPPED.rglob("*.safetensors")) / 1e6
    figures["shipped weights of both worlds"] = f"{megabytes:.1f} MB", "<= 60 MB"
    return figures, f"{each} images each, judged by the oracle, with exact 95 % intervals"


def _load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Load a pipeline and the arguments of its calls."""
    settings = json.loads((folder / "pocket.json").read_text(encoding="utf-8"))
    del settings["references"]
    pipeline = load(folder, "cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, settings


def share_text(hits: int, n: int) -> str:
    """Return a share with its number and its exact 95 % interval."""
    low, high = interval_of_share(hits, n) or (0.0, 1.0)
    return f"{hits / n:.3f} of {n}, {low:.3f} to {high:.3f}"


def _draw_item(draw_case: DrawCase, index: int) -> _Item:
    rng = held_out_rng(FIRST_INDEX + index)
    species, referenced = draw_case(rng)
    drawn = draw_scene(rng, species)
    scene = place_scene(
        rng,
        [Subject(s) for s in species],
        drawn.relations,
        background=drawn.background,
        light=drawn.light,
        weather=drawn.weather,
    )
    prompt = write_prompt(rng, request_of(scene, [s.name for s in species], [""] * len(species)))
    return _Item(scene, prompt, [render(place_scene(rng, [Subject(s)])) for s in referenced])


def _shows(oracle: Oracle, image: Image.Image, item: _Item) -> bool:
    """Return whether the oracle finds every species of the item."""
    return all(oracle.shows(image, [s.species.name for s in item.scene.subjects]).values())


def _generate(
    pipeline: Any,
    prompt: str,
    references: Sequence[Image.Image],
    seed: int,
    *,
    reference_size: int,
    **settings: Any,
) -> Any:
    """Return the pipeline's output for references scaled as the backend does."""
    for reference in references:
        reference.thumbnail((reference_size, reference_size))
    noise = torch.Generator().manual_seed(seed)
    return pipeline(prompt=prompt, image=list(references) or None, generator=noise, **settings).images[0]


def _time_ratio(pipeline: Any, settings: Mapping[str, Any], pairs: int) -> float:
    """Return the median ratio of this generator's time to the first world's, taken in turn."""
    first = _load(FIRST_GENERATOR)
    ratios = [_seconds(pipeline, settings) / _seconds(*first) for _ in range(pairs + 1)]
    return statistics.median(ratios[1:])  # the first pair warms up


def _seconds(pipeline: Any, settings: Mapping[str, Any]) -> float:
    """Return the time to the latents of an image of the generator's size, with one reference."""
    began = time.perf_counter()
    reference = Image.new("RGB", (settings["width"], settings["height"]))
    _generate(pipeline, "a finch", [reference], 0, output_type="latent", **settings)
    return time.perf_counter() - began
