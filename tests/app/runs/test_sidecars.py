"""Every picture carries its story: read back from the file alone, credited in full, and drawn again from it.

PICTURES says how many pictures of the pocket models are drawn, each of them twice.
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
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.world import SPECIES
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Attempt

PICTURES = int(os.environ.get("PICTURES", "4"))
SEED = int(os.environ.get("SEED", "1"))
PARTS = ("generator", "encoder", "detector")
TRAINED = all(list((SHIPPED / part).rglob("*.safetensors")) for part in PARTS)
GRAPHS = ("pleinair", "imagerag", "crossmodal", "direct")
PLACES = ("in the snow", "at night", "by the sea", "in a meadow")
KNOWN = ("CC0-1.0", "pleinair pocket world", "pocket-world")


def wishes() -> list[tuple[str, str, int]]:
    """Give for each picture a prompt, a graph and a seed."""
    rng = random.Random(SEED)
    names = [one.name for one in SPECIES if one.tier == "rare"]
    return [
        (f"a {rng.choice(names)} {rng.choice(PLACES)}", GRAPHS[number % len(GRAPHS)], rng.randrange(2**31))
        for number in range(PICTURES)
    ]


def carried(result: Result) -> tuple[dict[str, Any], str, bytes]:
    """Read a picture's file alone: its story, its line for picture browsers, its pixels."""
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        return json.loads(picture.info["pleinair"]), picture.info["parameters"], picture.tobytes()


@pytest.mark.slow
@pytest.mark.skipif(not TRAINED, reason="pocket models not trained yet")
@pytest.mark.parametrize(("prompt", "graph", "seed"), wishes())
def test_a_picture_tells_its_story_and_is_drawn_again_from_it(
    prompt: str, graph: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = draw(prompt, graph=graph, seed=seed, overrides={"budget.attempts": 2})
    story, line, pixels = carried(first)
    record = json.loads(first.sidecar.read_text(encoding="utf-8"))
    assert (story["prompt"], story["graph"], story["seed"]) == (prompt, graph, seed)
    assert line.splitlines()[0] == record["outcome"]["best"]["request"]["prompt"]
    assert story["references"] == record["references"]
    assert bool(story["references"]) == bool(record["outcome"]["best"]["request"]["references"])
    store = ArtifactStore(home().run(first.run_id) / "pictures")
    for attempt in map(Attempt.model_validate, record["attempts"]):
        for reference in attempt.request.references:
            hit = reference.hit
            assert (hit.license, hit.author, hit.source.split("/")[0]) == KNOWN
            assert hit.source.endswith(f"/{hit.id}")
            store.read(reference.picture)
        assert store.open(attempt.picture).size == (64, 64)
    again = redraw(first.sidecar, out=str(tmp_path / "again"))
    told, _, same = carried(again)
    assert same == pixels
    assert told | {"run": ""} == story | {"run": ""}
