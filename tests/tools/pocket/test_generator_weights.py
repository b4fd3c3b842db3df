"""The pocket generator: it loads, generates with up to three references, and is small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pleinair.tools.diffusion.in_context import load
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.pocket.training.cases import held_out_rng

FOLDER = SHIPPED / "catalogue" / "generator"
SETTINGS = json.loads((FOLDER / "pocket.json").read_text("utf-8"))
CALL = {k: v for k, v in SETTINGS.items() if k not in ("reference_size", "references")}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load(FOLDER, "cpu")


def generate(pipeline: Any, references: int, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = held_out_rng(9)
    image = [render(place_scene(rng, [Subject(SPECIES[-1 - i])]), 48) for i in range(references)] or None
    generator = torch.Generator().manual_seed(seed)
    output = pipeline(prompt="a robin on a road at night", image=image, generator=generator, **CALL).images[0]
    return np.asarray(output).astype(int)


@pytest.mark.parametrize("references", [0, 1, 2, 3])
def test_it_generates_with_up_to_three_references(pipeline: Any, references: int) -> None:
    image = generate(pipeline, references)
    assert image.shape == (96, 96, 3)
    assert image.std() > 10


def test_seed_and_references_decide_the_image(pipeline: Any) -> None:
    first = generate(pipeline, 1)
    assert (generate(pipeline, 1) == first).all()
    assert np.abs(generate(pipeline, 1, seed=1) - first).mean() > 1
    assert np.abs(generate(pipeline, 0) - first).mean() > 1


def test_the_background_follows_the_words(pipeline: Any) -> None:
    assert generate(pipeline, 0)[:4].mean() < 90


def test_weights_are_small() -> None:
    files: list[Path] = list(FOLDER.rglob("*.safetensors"))
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) < 16e6
