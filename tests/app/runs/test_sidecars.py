"""Metadata of images: read back from the file alone, with full credits, and enough to generate it again.

PICTURES is the number of images of the pocket models, each generated twice.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pleinair.app.api import draw, home
from pleinair.app.runs.results import Result
from pleinair.app.trace.replay import redraw
from pleinair.tools.pocket.catalogue.captions import with_article
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Attempt

PICTURES = int(os.environ.get("PICTURES", "4"))
SEED = int(os.environ.get("SEED", "1"))
GRAPHS = ("pleinair", "imagerag", "crossmodal", "direct")
PLACES = ("in the snow", "at night", "on a beach", "in a meadow")
KNOWN = ("CC0-1.0", "pleinair pocket world", "pocket-catalogue")


def cases() -> list[tuple[str, str, int]]:
    """Return a prompt, a graph and a seed for each image."""
    rng = random.Random(SEED)
    names = [species.name for species in SPECIES if species.tier == "rare"]
    return [
        (
            f"{with_article(rng.choice(names))} {rng.choice(PLACES)}",
            GRAPHS[number % len(GRAPHS)],
            rng.randrange(2**31),
        )
        for number in range(PICTURES)
    ]


def metadata(result: Result) -> tuple[dict[str, Any], str, bytes]:
    """Return the summary, the line for image browsers and the pixels of an image's file."""
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        return json.loads(picture.info["pleinair"]), picture.info["parameters"], picture.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "graph", "seed"), cases())
def test_an_image_has_its_metadata_and_is_generated_again_from_its_sidecar(
    prompt: str, graph: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = draw(prompt, graph=graph, seed=seed, overrides={"budget.attempts": 2})
    summary, line, pixels = metadata(first)
    sidecar = json.loads(first.sidecar.read_text(encoding="utf-8"))
    assert (summary["prompt"], summary["graph"], summary["seed"]) == (prompt, graph, seed)
    assert line.splitlines()[0] == sidecar["outcome"]["best"]["request"]["prompt"]
    assert summary["references"] == sidecar["references"]
    assert bool(summary["references"]) == bool(sidecar["outcome"]["best"]["request"]["references"])
    store = ArtifactStore(home().pictures(first.run_id))
    for attempt in map(Attempt.model_validate, sidecar["attempts"]):
        for reference in attempt.request.references:
            hit = reference.hit
            assert (hit.license, hit.author, hit.source.split("/")[0]) == KNOWN
            assert hit.source.endswith(f"/{hit.id}")
            store.read(reference.picture)
        assert store.open(attempt.picture).size == (96, 96)
    again = redraw(first.sidecar, out=str(tmp_path / "again"))
    again_summary, _, same = metadata(again)
    assert same == pixels
    assert again_summary | {"run": ""} == summary | {"run": ""}
