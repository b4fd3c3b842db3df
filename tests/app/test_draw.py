"""Whole runs with quick engines: what comes back, and what is on disk."""

import json
from pathlib import Path

from PIL import Image

from pleinair.app.draw import draw


def test_draws_until_every_concept_is_present(place: Path) -> None:
    result = draw("two things", seed=7)
    assert result.outcome.ending == "accepted"
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        story = json.loads(picture.text["pleinair"])  # type: ignore[attr-defined]
    assert story["references"][0]["license"] == "CC0-1.0"
