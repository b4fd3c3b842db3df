"""Measure the pocket models and the oracle against their bars: `python -m pleinair.evals.pocket.models`.

Not covered: the adaptor, which `python -m pleinair.evals.experiments.adaptor` measures; the models of the
first world, whose cards have the figures of their time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pleinair.evals.metrics import calibration_error
from pleinair.evals.pocket.generator import measure_generator, share_text
from pleinair.evals.pocket.oracle import Oracle
from pleinair.tools.pocket.catalogue.captions import describe
from pleinair.tools.pocket.catalogue.library import shown_species, write_library, write_novel
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES
from pleinair.tools.pocket.detector import encode_images, load_encoder
from pleinair.tools.pocket.training.__main__ import OUT
from pleinair.tools.pocket.training.card import NAME, Figures, figures_section, replace_figures
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.pocket.training.detector import FrozenEncoder, examine, load_net
from pleinair.tools.pocket.training.encoder import encode_texts, normalise
from pleinair.tools.pocket.training.images import degrade

COMMAND = "python -m pleinair.evals.pocket.models"
ORACLE = Path(__file__).parents[1] / "data" / "ORACLE.md"
Measured = tuple[Figures, str]  # figures, and on how much they were measured
BATCH = 100
PRESENCE_BARS = {"precision": ">= .95", "recall": ">= .95", "expected calibration error": "<= .05"}


def _encoder(folder: Path, size: int) -> Measured:
    """Measure how often a name, of a novel species a description, finds an image of it first."""
    model, _, tokenize = load_encoder(folder / "encoder")
    with tempfile.TemporaryDirectory() as place:
        images, shown = _library(Path(place), size)
    rng = held_out_rng(0)
    texts = [describe(rng, s).words if s.tier == "novel" else s.name for s in SPECIES]
    with torch.inference_mode():
        parts = [normalise(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        features = torch.cat([encode_images(model, part)[0] for part in parts])
        queries = encode_texts(model, tokenize([f"a photo of a {text}" for text in texts]))
        best = (queries @ features.T).argmax(-1).tolist()
    figures = {}
    for tier, query in (("known", "name"), ("rare", "name"), ("novel", "description")):
        right = [s.name in shown[i] for s, i in zip(SPECIES, best, strict=True) if s.tier == tier]
        bar = "-" if tier == "novel" else ">= .95"
        figures[f"R@1, {tier}, {query} → image"] = (share_text(sum(right), len(right)), bar)
    return figures, f"One query a species, in the library of {len(images):,} images, novel ones included"


def _library(place: Path, size: int) -> tuple[Tensor, list[tuple[str, ...]]]:
    """Write the library and the novel species, and return their images in 0..1 and what they show."""
    write_library(place / "library", size=size)
    write_novel(place / "novel")
    shown = list(shown_species(size=size).values())
    lines = (place / "novel" / "metadata.jsonl").read_text("utf-8").splitlines()
    shown += [tuple(json.loads(line)["boxes"]) for line in lines]
    files = [*sorted((place / "library").glob("*.png")), *sorted((place / "novel").glob("*.png"))]
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, shown


def _detector(folder: Path, each: int) -> Measured:
    """Measure precision, recall, calibration and boxes on clean and degraded images, four phrases each."""
    (net, config), encoder = load_net(folder / "detector"), FrozenEncoder(folder / "encoder")
    figures = {}
    for state in ("clean", "degraded"):
        rngs = [held_out_rng(20_000 + index) for index in range(each)]
        examined, words = examine(net, encoder, rngs, degraded=state == "degraded")
        by_name = torch.tensor([_is_name(text) for text in words])
        for which, chosen in (("all phrases", by_name | True), ("names", by_name)):
            part = {key: column[chosen] for key, column in examined.items()}
            for name, figure in presence_figures(part, **config["calibration"]).items():
                bar = PRESENCE_BARS.get(name, "-") if state == "clean" else "-"
                figures[f"{name}, {which}, {state} images"] = (f"{figure:.3f}", bar)
    return figures, f"{each:,} images, four phrases each"


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


def _is_name(words: str) -> bool:
    """Return whether a phrase, with or without an article and an opening, is a species' name."""
    bare = words.removeprefix("a photo of ").removeprefix("a ").removeprefix("an ")
    return bare in BY_NAME


def _oracle(folder: Path, each: int) -> Measured:
    """Measure how often the oracle finds exactly the species of a held-out scene."""
    oracle, figures = Oracle(), {}
    for strength, state in ((0.0, "clean"), (1.0, "degraded")):
        for subjects, scene in ((1, "one subject"), (2, "two subjects"), (3, "three subjects")):
            right = sum(_is_right(oracle, index, subjects, strength) for index in range(each))
            bar = ">= .99" if (state, subjects) == ("clean", 1) else "-"
            figures[f"right species, {scene}, {state} images"] = (share_text(right, each), bar)
    return figures, f"{each} images each, with exact 95 % intervals"


def _is_right(oracle: Oracle, index: int, subjects: int, strength: float) -> bool:
    rng = held_out_rng(30_000 + index)
    species = rng.sample(SPECIES, subjects)
    place = rng.choice(("left of", "above"))
    image = render(place_scene(rng, [Subject(s) for s in species], [place] if subjects > 1 else []))
    if strength:
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
        pixels = degrade(pixels, torch.Generator().manual_seed(index), strength)
        image = Image.fromarray((pixels[0].permute(1, 2, 0) * 255).byte().numpy())
    return sorted(finding.name for finding in oracle.species(image)) == sorted(s.name for s in species)


MODELS: dict[str, tuple[Callable[[Path, int], Measured], int]] = {  # and images for each measure
    "encoder": (_encoder, 2000),
    "detector": (_detector, 3000),
    "generator": (measure_generator, 150),
    "oracle": (_oracle, 500),
}


def card_of(model: str, folder: Path = OUT) -> Path:
    """Return the path of a model's card."""
    return ORACLE if model == "oracle" else folder / model / NAME


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and with --cards write the figures into the model cards."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--folder", type=Path, default=OUT, help="of the models (%(default)s)")
    parser.add_argument("--each", type=int, help="images for each measure; by the model if omitted")
    parser.add_argument("--cards", action="store_true", help="write the figures into the model cards")
    options = parser.parse_args(arguments)
    for model in [options.model] if options.model else MODELS:
        measure, each = MODELS[model]
        figures, count = measure(options.folder, options.each or each)
        for name, (figure, bar) in figures.items():
            print(f"{model}: {name}: {figure} (bar {bar})", flush=True)
        if options.cards:
            command = f"{COMMAND} --model {model} --each {options.each or each}"
            replace_figures(card_of(model, options.folder), figures_section(figures, count, command))


if __name__ == "__main__":
    main()
