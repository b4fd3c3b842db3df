"""Measure the pocket generator against its bars on held-out seeds, judged by the oracle; write its card.

`python -m pleinair.evals.pocket.generator --each 60`. References come in the order in which the prompt names
their subjects, as the graphs hand them over. Not covered: another order, three subjects, wrong references.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pleinair.evals.pocket.oracle import Oracle
from pleinair.tools.diffusion.in_context import load
from pleinair.tools.pocket.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.prompts import RELATIONS, Request, write_prompt
from pleinair.tools.pocket.training.export import FOLDER, write_card
from pleinair.tools.pocket.world import SPECIES, Species, held_out_rng, random_scene, render

FIRST = 500_000
BY_TIER = {tier: [s for s in SPECIES if s.tier == tier] for tier in ("known", "rare", "novel")}
UNKNOWN = BY_TIER["rare"] + BY_TIER["novel"]
Case = tuple[list[Species], list[Species]]  # who is asked for, who has a reference
Draw = Callable[[random.Random, int], Case]


def _single(pool: Sequence[Species], referenced: bool) -> Draw:
    def draw(_: random.Random, index: int) -> Case:
        species = [pool[index % len(pool)]]
        return species, species if referenced else []

    return draw


def _pair(rng: random.Random, _: int) -> Case:
    pair = rng.sample(UNKNOWN, 2)
    return pair, pair


def _known_and_referenced(rng: random.Random, _: int) -> Case:
    known, unknown = rng.choice(BY_TIER["known"]), rng.choice(UNKNOWN)
    return rng.sample([known, unknown], 2), [unknown]


def _known_pair(rng: random.Random, _: int) -> Case:
    return rng.sample(BY_TIER["known"], 2), []


MEASURES: dict[str, tuple[Draw, str]] = {
    "known species by name": (_single(BY_TIER["known"], False), ">= 85 %"),
    "rare species by name, no reference": (_single(BY_TIER["rare"], False), "<= 15 %"),
    "rare species, one reference": (_single(BY_TIER["rare"], True), ">= 85 %"),
    "novel species, one reference": (_single(BY_TIER["novel"], True), ">= 85 %"),
    "two unknown species, two references, both right": (_pair, ">= 75 %"),
    "a known and a referenced species, both right": (_known_and_referenced, "-"),
    "two known species by name, both right": (_known_pair, "-"),
}


def _prompt_for(rng: random.Random, species: Sequence[Species]) -> str:
    """Write a held-out prompt for the species, with a relation of two and mostly a place."""
    relation = rng.choice(RELATIONS) if len(species) > 1 else None
    place = rng.choice(BACKGROUNDS) if rng.random() < 0.75 else None
    return write_prompt(rng, Request(tuple(s.name for s in species), relation, place))


def _reference(rng: random.Random, species: Species, size: int) -> Image.Image:
    """Render a reference as the engine hands it over."""
    picture = render(random_scene(rng, [species]))
    picture.thumbnail((size, size))
    return picture


class Measurement:
    """Hold the pipeline, its settings and the oracle."""

    def __init__(self, folder: Path, changes: dict[str, Any]) -> None:
        """Load everything; `changes` override the folder's pocket.json."""
        self.settings = json.loads((folder / "pocket.json").read_text(encoding="utf-8")) | changes
        self.pipeline, self.oracle = load(folder, "cpu"), Oracle()
        self.size = self.settings.pop("reference_size")
        self.settings.pop("references")

    def draw(self, rng: random.Random, case: Case, seed: int) -> Image.Image:
        """Draw one picture for the case."""
        asked, referenced = case
        image = [_reference(rng, species, self.size) for species in referenced] or None
        generator = torch.Generator().manual_seed(seed)
        output = self.pipeline(
            prompt=_prompt_for(rng, asked), image=image, generator=generator, **self.settings
        )
        picture: Image.Image = output.images[0]
        return picture

    def share_right(self, draw_case: Draw, count: int) -> float:
        """Return the share of `count` pictures that show every species asked for."""
        right = 0
        for index in range(count):
            rng = held_out_rng(FIRST + index)
            case = draw_case(rng, index)
            picture = self.draw(rng, case, seed=index)
            right += all(self.oracle.shows(picture, [s.name for s in case[0]]).values())
        return right / count


def _measure(folder: Path, each: int, changes: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return figure and bar of every measure, `each` pictures a measure."""
    measurement, figures = Measurement(folder, changes), {}
    began = time.perf_counter()
    for name, (draw_case, bar) in MEASURES.items():
        figures[name] = f"{100 * measurement.share_right(draw_case, each):.0f} %", bar
        sys.stdout.write(f"{name}: {figures[name][0]} (bar {bar})\n")
        sys.stdout.flush()
    seconds = (time.perf_counter() - began) / (each * len(MEASURES))
    return figures | {"seconds a picture, here": (f"{seconds:.2f}", "<= 2")}


def main() -> None:
    """Measure, print, and with --card write MODEL_CARD.md beside the weights."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.pocket.generator", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--each", type=int, default=60, help="pictures a measure")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--card", action="store_true", help="write MODEL_CARD.md into the folder")
    options = parser.parse_args()
    changes = {"num_inference_steps": options.steps, "guidance_scale": options.guidance}
    figures = _measure(options.folder, options.each, {k: v for k, v in changes.items() if v is not None})
    if options.card:
        write_card(options.folder, figures, options.each)


if __name__ == "__main__":
    main()
