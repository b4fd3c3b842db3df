"""Each ControlNet class on random weights that the test saves, the branch in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import (
    LINEAR,
    REFERENCES,
    draw,
    make_request,
    noise_from_another_thread,
    stop_after,
)

from pleinair.tools.diffusion.controlnet import ControlNet, crop_to_size, mosaic
from pleinair.tools.types import BadInput, Cancelled

# diffusers' own: SDXL's scheduler hands numbers to numpy in the old way, FLUX.1's branch imports an old name
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]


@dataclass(frozen=True)
class Case:
    """Pipeline class with its base model and its branch."""

    pipeline: str
    base: Callable[[], Any]
    branch: Callable[[], Any]
    negative_prompt: bool = True


CASES = {
    case.pipeline: case
    for case in (
        Case("StableDiffusionControlNetPipeline", tiny.sd15, tiny.branch_sd15),
        Case("StableDiffusionXLControlNetPipeline", tiny.sdxl, tiny.branch_sdxl),
        Case("StableDiffusion3ControlNetPipeline", tiny.sd3, tiny.branch_sd3),
        Case("FluxControlNetPipeline", tiny.flux1, tiny.branch_flux1, negative_prompt=False),
    )
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def engine(case: Case, tmp_path_factory: pytest.TempPathFactory) -> ControlNet:
    folder = tmp_path_factory.mktemp(case.pipeline)
    return ControlNet(
        str(tiny.save(case.base, folder / "base")),
        controlnet_folder=str(tiny.save(case.branch, folder / "branch")),
        pipeline=case.pipeline,
        height=32,
        width=32,
        options={"control_guidance_end": 0.9},  # the base model's class has no such argument
    )


def test_generates_with_and_without_a_reference(engine: ControlNet, case: Case) -> None:
    assert engine.capabilities.slots == 1
    assert engine.capabilities.negative_prompt is case.negative_prompt
    plain, first, second = draw(engine), draw(engine, REFERENCES[:1]), draw(engine, REFERENCES[1:2])
    assert len({image.tobytes() for image in (plain, first, second)}) == 3
    assert np.array_equal(plain, draw(engine))


def test_without_a_reference_it_is_the_base_model(engine: ControlNet, case: Case) -> None:
    base = getattr(diffusers, type(case.base()).__name__)
    assert isinstance(engine._pipelines[engine.family.text_pipeline], base)


def test_the_strength_of_a_request_changes_the_image(engine: ControlNet) -> None:
    assert "reference_strength" in engine.capabilities.accepts
    usual, full, none = (draw(engine, REFERENCES[:1], reference_strength=value) for value in (None, 1.0, 0.0))
    assert np.array_equal(usual, full)
    assert not np.array_equal(full, none)


def test_torchs_global_noise_changes_nothing(engine: ControlNet) -> None:
    first = draw(engine, REFERENCES[:1])
    with noise_from_another_thread():
        assert np.array_equal(first, draw(engine, REFERENCES[:1]))


def test_cancelling_does_not_change_the_next_image(engine: ControlNet) -> None:
    before = draw(engine, REFERENCES[:1])
    calls: list[tuple[int, int]] = []
    with pytest.raises(Cancelled):
        engine.generate(make_request(), REFERENCES[:1], stop_after(1, calls))
    assert [done for done, _ in calls] == [0, 1]
    assert np.array_equal(before, draw(engine, REFERENCES[:1]))


def test_too_many_references_are_refused_before_anything_runs(engine: ControlNet) -> None:
    with pytest.raises(BadInput, match="takes 1 references, got 2"):
        draw(engine, REFERENCES[:2])


def test_a_mosaic_keeps_the_colours_of_blocks() -> None:
    image = mosaic(LINEAR.resize((128, 256)))
    assert image.size == (128, 256)
    assert len({image.getpixel((0, row)) for row in range(256)}) == 4


def test_a_reference_is_cropped_around_its_centre() -> None:
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    assert crop_to_size(wide, 32, 32).getextrema() == ((0, 0), (0, 0), (255, 255))


def test_unknown_controls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="control = 'edges': must be 'picture' or 'mosaic'"):
        ControlNet(str(tmp_path), controlnet_folder=str(tmp_path), control="edges")
