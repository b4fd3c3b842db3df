"""Pipelines that a program has loaded are called as those that an engine loads: the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import REFERENCES, draw

from pleinair.tools.diffusion.controlnet import ControlNet
from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.ip_adapter import IpAdapter
from pleinair.tools.diffusion.loaded import find_engine, wrap
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import BadInput

SMALL: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 1.0}


def in_context(folder: Path) -> DiffusersEngine:
    place = str(tiny.save(tiny.klein, folder / "base"))
    return InContext(place, pipeline="Flux2KleinPipeline", options=tiny.FLUX2, **SMALL)


def text_only(folder: Path) -> DiffusersEngine:
    return TextOnly(str(tiny.save(tiny.sd15, folder / "base")), pipeline="StableDiffusionPipeline", **SMALL)


def ip_adapter(folder: Path) -> DiffusersEngine:
    tiny.save(tiny.sd15, folder / "base")
    tiny.save_ip_adapter(tiny.sd15().unet, folder / "adapter")
    adapter = {"adapter_folder": str(folder / "adapter"), "adapter_subfolder": "models"}
    return IpAdapter(
        str(folder / "base"),
        pipeline="StableDiffusionPipeline",
        adapter_weight="plus.safetensors",
        **adapter,
        **SMALL,
    )


def controlnet(folder: Path) -> DiffusersEngine:
    tiny.save(tiny.sd15, folder / "base")
    tiny.branch_sd15().save_pretrained(folder / "branch")
    return ControlNet(
        str(folder / "base"),
        pipeline="StableDiffusionControlNetPipeline",
        controlnet_folder=str(folder / "branch"),
        **SMALL,
    )


MAKERS: list[Callable[[Path], DiffusersEngine]] = [in_context, text_only, ip_adapter, controlnet]


@pytest.mark.parametrize("make", MAKERS)
def test_a_loaded_pipeline_has_the_pixels_of_a_named_one(make: Any, tmp_path: Path) -> None:
    named = make(tmp_path)
    pipeline = named.open(tmp_path / "base", torch.float32)
    loaded = wrap(pipeline, SMALL | {"options": named.settings.options})
    assert type(loaded) is type(named)
    assert loaded.capabilities.slots == named.capabilities.slots
    assert type(pipeline).__name__ in loaded.capabilities.id
    for images in ([], REFERENCES[: min(1, named.capabilities.slots)]):
        assert draw(loaded, images=images).tobytes() == draw(named, images=images).tobytes()


def test_size_steps_and_guidance_are_those_of_the_class_by_default() -> None:
    capabilities = wrap(tiny.sd15(), {}).capabilities
    assert (capabilities.num_inference_steps, capabilities.guidance_scale) == (50, 7.5)
    side = tiny.sd15().unet.config.sample_size * tiny.sd15().vae_scale_factor
    assert (capabilities.height, capabilities.width) == (side, side)
    assert wrap(tiny.klein(), {}).capabilities.num_inference_steps == 4  # distilled


def test_two_engines_of_one_pipeline_take_turns() -> None:
    pipeline = tiny.sd15()
    first, second = wrap(pipeline, SMALL), wrap(pipeline, SMALL)
    assert first._lock is second._lock
    assert wrap(tiny.sd15(), SMALL)._lock is not first._lock


@pytest.mark.parametrize("key", ["device", "folder", "revision", "adapter_folder", "nonsense"])
def test_settings_of_loading_are_refused(key: str) -> None:
    with pytest.raises(BadInput, match=f"generator.{key} = 'x': a loaded pipeline has no such setting"):
        wrap(tiny.sd15(), {key: "x"})


def test_a_class_without_an_engine_is_refused() -> None:
    class Other:
        pass

    with pytest.raises(BadInput, match="generator: Other is not supported; accepted: Flux2KleinKVPipeline,"):
        find_engine(Other())


def test_the_programs_pipeline_stays_as_it_is() -> None:
    pipeline = tiny.klein()
    before = {name: id(value) for name, value in vars(pipeline).items()}
    image = draw(wrap(pipeline, SMALL | {"options": tiny.FLUX2}), images=[Image.new("RGB", (24, 24), "red")])
    assert image.shape == (32, 32, 3)
    assert {name: id(value) for name, value in vars(pipeline).items()} == before
