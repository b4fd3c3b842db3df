"""Tests of the seconds that an image costs which is served again."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from pleinair.evals.papers.bench import request_key
from pleinair.evals.reproduce.generate import Clock, TimedGenerator
from pleinair.evals.reproduce.records import Records
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Capabilities, GenerateRequest


class Grey:
    """Generator of a grey image."""

    capabilities = Capabilities(
        id="grey", slots=0, height=64, width=64, num_inference_steps=1, guidance_scale=1.0
    )

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        return Image.new("RGB", (8, 8), "grey")


def generate(folder: Path, request: GenerateRequest) -> Clock:
    """Generate by new engines over a folder, as each command does; return their clock."""
    clock = Clock(Records(folder / "drawn.jsonl"))
    TimedGenerator(Grey(), ArtifactStore(folder / "images"), clock).generate(request, [], lambda *_: None)
    return clock


def test_an_image_that_is_served_again_costs_the_seconds_that_it_took(tmp_path: Path) -> None:
    request = GenerateRequest(
        prompt="a finch", seed=1, height=64, width=64, num_inference_steps=1, guidance_scale=1.0
    )
    first = generate(tmp_path, request)
    assert (first.made, first.saved) == (1, 0.0)
    first.drawn.add(request_key("grey", request), seconds=2.5)
    second = generate(tmp_path, request)
    assert (second.made, second.saved) == (0, 2.5)
    assert generate(tmp_path, request.model_copy(update={"seed": 2})).saved == 0.0
