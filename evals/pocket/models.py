"""Measure the pocket models and the oracle against their bars: `python -m pleinair.evals.pocket.models`.

The generator is judged by the oracle. Its references are in the order in which the prompt names their
subjects, as the graphs hand them over. Not covered: the adaptor, which
`python -m pleinair.evals.experiments.adaptor` measures; another order of references, three subjects, wrong
references.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pleinair.evals.metrics import calibration_error
from pleinair.evals.pocket.oracle import Oracle
from pleinair.tools.diffusion.in_context import load
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.detector import encode_images, load_encoder
from pleinair.tools.pocket.invented.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.invented.prompts import RELATIONS, Request, describe, write_prompt
from pleinair.tools.pocket.invented.world import SPECIES, Species, random_scene, render
from pleinair.tools.pocket.training.autoencoder import to_tensor
from pleinair.tools.pocket.training.card import NAME, Figures, figures_section, replace_figures
from pleinair.tools.pocket.training.contrastive import encode_texts, normalise
from pleinair.tools.pocket.training.detector import training_world
from pleinair.tools.pocket.training.images import degrade, pixels
from pleinair.tools.pocket.training.presence import FrozenEncoder, examine, load_net
from pleinair.tools.pocket.training.scenes import render_sample
from pleinair.tools.pocket.training.streams import held_out_rng

ORACLE = Path(__file__).parents[1] / "data" / "ORACLE.md"
COMMAND = "python -m pleinair.evals.pocket.models"
BY_TIER = {tier: [s for s in SPECIES if s.tier == tier] for tier in ("known", "rare", "novel")}
KNOWN, UNKNOWN = BY_TIER["known"], BY_TIER["rare"] + BY_TIER["novel"]
ENCODER_BARS = {"known": ">= .95", "rare": ">= .95", "novel": "-"}
DETECTOR_BARS = {"precision": ">= .95", "recall": ">= .95", "expected calibration error": "<= .05"}
Case = tuple[list[Species], list[Species]]  # the prompt's species, those with a reference
DrawCase = Callable[[random.Random, int], Case]
Measured = tuple[Figures, str]  # figures, and on how much they were measured


def _encoder(folder: Path, each: int) -> Measured:
    """Measure how often a species' name, a novel one's description, finds an image of it alone first."""
    crowd = 200  # images of two species
    model, _, tokenize = load_encoder(folder / "encoder")
    groups = [[s] for s in SPECIES for _ in range(each)]
    groups += [held_out_rng(index).sample(SPECIES, 2) for index in range(crowd)]
    samples = [render_sample(held_out_rng(10_000 + index), group) for index, group in enumerate(groups)]
    queries = [f"a photo of a {describe(s) if s.tier == 'novel' else s.name}" for s in SPECIES]
    with torch.inference_mode():
        features, _ = encode_images(model, normalise(pixels(samples)))
        best = (encode_texts(model, tokenize(queries)) @ features.T).argmax(-1).tolist()
    right = {s.name: groups[index] == [s] for s, index in zip(SPECIES, best, strict=True)}
    figures = {}
    for tier, species in BY_TIER.items():
        share = sum(right[s.name] for s in species) / len(species)
        query = "description" if tier == "novel" else "name"
        figures[f"R@1, {tier}, {query} → image"] = (f"{share:.3f}", ENCODER_BARS[tier])
    return figures, f"One query a species, among {each} images of each and {crowd} of two"


def _detector(folder: Path, each: int) -> Measured:
    """Measure precision, recall, calibration and boxes on clean and degraded images, four phrases each."""
    (net, config), encoder = load_net(folder / "detector"), FrozenEncoder(folder / "encoder")
    figures = {}
    for state_name, degraded in (("clean", False), ("degraded", True)):
        rngs = [held_out_rng(20_000 + index) for index in range(each)]
        examined, _ = examine(net, encoder, training_world(), rngs, degraded)
        for name, figure in presence_figures(examined, **config["calibration"]).items():
            bar = "-" if degraded else DETECTOR_BARS.get(name, "-")
            figures[f"{name}, {state_name} images"] = (f"{figure:.3f}", bar)
    return figures, f"{each:,} images"


def presence_figures(examined: dict[str, Tensor], scale: float, shift: float) -> dict[str, float]:
    """Return precision, recall, calibration error and mean box overlap at probability .5."""
    p = (examined["logits"] * scale + shift).sigmoid()
    predicted, fits = p >= 0.5, examined["fits"] > 0
    both = (predicted & fits).sum()
    return {
        "precision": float(both / predicted.sum()),
        "recall": float(both / fits.sum()),
        "expected calibration error": calibration_error(p.tolist(), fits.tolist()) or 0.0,
        "box overlap (IoU)": float(examined["overlap"][fits].mean()),
    }


def _oracle(folder: Path, each: int) -> Measured:
    """Measure how often the oracle names exactly the species of a held-out scene."""
    oracle, figures = Oracle(), {}
    for strength, state in ((0.0, "clean"), (1.0, "degraded")):
        for subjects, scene in ((1, "one subject"), (2, "two subjects")):
            share = sum(_is_right(oracle, index, subjects, strength) for index in range(each)) / each
            bar = ">= .99" if (state, subjects) == ("clean", 1) else "-"
            figures[f"right species, {scene}, {state} images"] = (f"{share:.3f}", bar)
    return figures, f"{each} images each"


def _is_right(oracle: Oracle, index: int, subjects: int, strength: float) -> bool:
    rng = held_out_rng(index)
    species = rng.sample(SPECIES, subjects)
    image = np.asarray(render(random_scene(rng, species, relation=rng.choice(("left of", "above")))))
    if strength:
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        batch = degrade(batch, torch.Generator().manual_seed(index), strength)
        image = (batch[0].permute(1, 2, 0) * 255).byte().numpy()
    findings = oracle.species(Image.fromarray(image))
    return sorted(finding.name for finding in findings) == sorted(s.name for s in species)


def _single(tier: str, referenced: bool) -> DrawCase:
    def draw(_: random.Random, index: int) -> Case:
        species = [BY_TIER[tier][index % len(BY_TIER[tier])]]
        return species, species if referenced else []

    return draw


def _pair(rng: random.Random, _: int) -> Case:
    pair = rng.sample(UNKNOWN, 2)
    return pair, pair


def _known_and_referenced(rng: random.Random, _: int) -> Case:
    by_name, by_reference = rng.choice(KNOWN), rng.choice(UNKNOWN)
    return rng.sample([by_name, by_reference], 2), [by_reference]


CASES: dict[str, tuple[DrawCase, str]] = {
    "known species by name": (_single("known", False), ">= 85 %"),
    "rare species by name, no reference": (_single("rare", False), "<= 15 %"),
    "rare species, one reference": (_single("rare", True), ">= 85 %"),
    "novel species, one reference": (_single("novel", True), ">= 85 %"),
    "two unknown species, two references, both right": (_pair, ">= 75 %"),
    "a known and a referenced species, both right": (_known_and_referenced, "-"),
    "two known species by name, both right": (lambda rng, _: (rng.sample(KNOWN, 2), []), "-"),
}


def _generator(folder: Path, each: int) -> Measured:
    """Measure how often the oracle finds every species of the prompt, `each` images a case."""
    folder = folder / "generator"
    pipeline, oracle, figures = load(folder, "cpu"), Oracle(), {}
    settings = json.loads((folder / "pocket.json").read_text(encoding="utf-8"))
    del settings["references"]
    began = time.perf_counter()
    for name, (draw_case, bar) in CASES.items():
        right = 0
        for index in range(each):
            rng = held_out_rng(500_000 + index)
            case = draw_case(rng, index)
            image = _generate(pipeline, rng, case, index, **settings)
            right += all(oracle.shows(image, [s.name for s in case[0]]).values())
        figures[name] = f"{100 * right / each:.0f} %", bar
    seconds = (time.perf_counter() - began) / (each * len(CASES))
    figures["seconds an image"] = f"{seconds:.2f}", "<= 2"
    error = mean_absolute_error(pipeline.vae)
    figures["autoencoder, mean absolute error"] = f"{error:.2f} / 255", "<= 2.5 / 255"
    return figures, f"{each} images each, judged by the oracle"


def _generate(
    pipeline: Any, rng: random.Random, case: Case, seed: int, *, reference_size: int, **settings: Any
) -> Image.Image:
    """Generate an image of the case, its references scaled as the backend does."""
    species, referenced = case
    references = [render(random_scene(rng, [s])) for s in referenced]
    for reference in references:
        reference.thumbnail((reference_size, reference_size))
    relation = rng.choice(RELATIONS) if len(species) > 1 else None
    place = rng.choice(BACKGROUNDS) if rng.random() < 0.75 else None
    prompt = write_prompt(rng, Request(tuple(s.name for s in species), relation, place))
    noise = torch.Generator().manual_seed(seed)
    image: Image.Image = pipeline(
        prompt=prompt, image=references or None, generator=noise, **settings
    ).images[0]
    return image


@torch.no_grad()
def mean_absolute_error(autoencoder: Any, count: int = 64) -> float:
    """Return the reconstruction error of `count` held-out images in 1/255."""
    rngs = [held_out_rng(index) for index in range(count)]
    scenes = [random_scene(rng, rng.sample(SPECIES, 1 + index % 2)) for index, rng in enumerate(rngs)]
    images = to_tensor(np.stack([np.asarray(render(scene)) for scene in scenes]))
    decoded = autoencoder.decode(autoencoder.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return float((decoded - images).abs().mean() * 127.5)


MODELS: dict[str, tuple[Callable[[Path, int], Measured], int]] = {  # and images for each measure
    "encoder": (_encoder, 4),
    "detector": (_detector, 5000),
    "generator": (_generator, 96),
    "oracle": (_oracle, 500),
}


def card_of(model: str, folder: Path = SHIPPED) -> Path:
    """Return the path of a model's card."""
    return ORACLE if model == "oracle" else folder / model / NAME


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and with --cards write the figures into the model cards."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="of the models (%(default)s)")
    parser.add_argument("--each", type=int, help="images for each measure; by the model if omitted")
    parser.add_argument("--cards", action="store_true", help="write the figures into the model cards")
    options = parser.parse_args(arguments)
    models: Iterable[str] = [options.model] if options.model else MODELS
    for model in models:
        measure, each = MODELS[model]
        figures, count = measure(options.folder, options.each or each)
        for name, (figure, bar) in figures.items():
            print(f"{model}: {name}: {figure} (bar {bar})")
        if options.cards:
            command = f"{COMMAND} --model {model} --each {options.each or each}"
            replace_figures(card_of(model, options.folder), figures_section(figures, count, command))


if __name__ == "__main__":
    main()
