"""What an image without references depends on: the same for all backends of a model, whatever its branch."""

from typing import Any

import pytest

from pleinair.tools.diffusion.controlnet import ControlNet
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.ip_adapter import IpAdapter
from pleinair.tools.diffusion.openai_images import OpenAIImages
from pleinair.tools.diffusion.text_only import TextOnly

BASE: dict[str, Any] = {"model": "owner/base", "revision": "a" * 40}
ADAPTER = {"adapter_model": "owner/adapter", "adapter_revision": "b" * 40}
BRANCH = {"controlnet_model": "owner/branch", "controlnet_revision": "c" * 40}
SDXL = "StableDiffusionXLPipeline"


def sampler_of(backend: Any, **arguments: Any) -> str:
    sampler: str = backend.declare(**{**BASE, **arguments}).sampler
    return sampler


def test_the_use_of_references_does_not_count() -> None:
    samplers = {
        sampler_of(TextOnly, pipeline=SDXL),
        *(sampler_of(IpAdapter, **ADAPTER, scale=scale) for scale in (0.5, 0.7)),
        *(sampler_of(ControlNet, **BRANCH, controlnet_conditioning_scale=scale) for scale in (0.5, 0.7)),
        sampler_of(ControlNet, **BRANCH, control="mosaic", options={"control_guidance_end": 0.5}),
    }
    assert samplers == {f"{SDXL}:owner/base@{'a' * 40}"}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "owner/other"},
        {"revision": "d" * 40},
        {"pipeline": "StableDiffusionPipeline"},
        {"options": {"clip_skip": 2}},
    ],
)
def test_model_weights_and_arguments_count(changes: dict[str, Any]) -> None:
    plain = {"pipeline": SDXL}
    assert sampler_of(TextOnly, **{**plain, **changes}) != sampler_of(TextOnly, **plain)


def test_arguments_with_a_setting_of_their_own_count() -> None:
    short, long = (sampler_of(InContext, max_sequence_length=tokens) for tokens in (64, 128))
    assert short != long
    assert sampler_of(InContext, slots=0, reference_size=64, wording="") == sampler_of(InContext)


def test_the_fields_of_a_servers_request_count() -> None:
    plain, high = (OpenAIImages.declare(model="m", options=options) for options in ({}, {"quality": "high"}))
    assert plain.id == high.id
    assert plain.sampler != high.sampler
