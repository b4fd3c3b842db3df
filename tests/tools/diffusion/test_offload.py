"""Every conditioning gives the same image on every offload level as without offload, also after a stop.

A CPU stands in for the device: accelerate's own hooks move the weights, from it and back to it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_pipelines as tiny
from support.generator_requests import REFERENCES, draw, make_request, stop_after

from pleinair.tools.diffusion import offload
from pleinair.tools.diffusion.controlnet import ControlNet
from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.ip_adapter import IpAdapter
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import Cancelled

# diffusers' Euler scheduler, SDXL's own, hands torch's numbers to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Build = Callable[[Path, str], DiffusersEngine]
TEXT: dict[str, Any] = {"max_sequence_length": 24}
LAYERS = {**TEXT, "text_encoder_out_layers": (0, 1)}
SIZE: dict[str, Any] = {"height": 32, "width": 32}


def saved(make: Callable[[], Any], folder: Path) -> Path:
    """Save a model, once for all of its engines."""
    return folder if folder.is_dir() else tiny.save(make, folder)


def in_context(make: Callable[[], Any], pipeline: str, **settings: Any) -> Build:
    def build(folder: Path, level: str) -> DiffusersEngine:
        model = str(saved(make, folder))
        return InContext(model, pipeline=pipeline, reference_size=32, memory=level, **SIZE, **settings)

    return build


def ip_adapter(folder: Path, level: str) -> DiffusersEngine:
    model = saved(tiny.sdxl, folder / "base")
    if not (folder / "adapter").is_dir():
        tiny.save_ip_adapter(tiny.sdxl().unet, folder / "adapter")
    return IpAdapter(
        str(model), memory=level, adapter_folder=str(folder / "adapter"), adapter_subfolder="models",
        adapter_weight="plus.safetensors", image_encoder="image_encoder", **SIZE,
    )  # fmt: skip


def controlnet(make: Callable[[], Any], branch: Callable[[], Any], **settings: Any) -> Build:
    def build(folder: Path, level: str) -> DiffusersEngine:
        model, branch_folder = str(saved(make, folder / "base")), str(saved(branch, folder / "branch"))
        return ControlNet(model, memory=level, controlnet_folder=branch_folder, **SIZE, **settings)

    return build


def text_only(folder: Path, level: str) -> DiffusersEngine:
    model = str(saved(tiny.z_image, folder))
    return TextOnly(model, pipeline="ZImagePipeline", memory=level, options=TEXT, **SIZE)


CASES: dict[str, Build] = {
    "klein": in_context(tiny.klein, "Flux2KleinPipeline", **LAYERS),
    "omnigen": in_context(tiny.omnigen, "OmniGenPipeline", options={"img_guidance_scale": 1.6}),
    "z_image_omni": in_context(tiny.z_image_omni, "ZImageOmniPipeline", **TEXT),
    "ip_adapter": ip_adapter,
    "controlnet_sd3": controlnet(
        tiny.sd3, tiny.branch_sd3, pipeline="StableDiffusion3ControlNetPipeline", options=TEXT
    ),
    "text_only": text_only,
}


@pytest.fixture(autouse=True)
def offloading_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow all offload levels on the CPU; diffusers calls it cpu:0, a device that no tensor is on."""
    cpu_offload = import_module("accelerate").cpu_offload

    def to_cpu(model: Any, execution_device: Any, **others: Any) -> Any:
        return cpu_offload(model, torch.device("cpu"), **others)

    monkeypatch.setattr("accelerate.cpu_offload", to_cpu)
    monkeypatch.setattr(offload, "CPU_LEVELS", offload.LEVELS)


@pytest.mark.parametrize("name", CASES)
def test_an_offloaded_model_generates_the_same_image(name: str, tmp_path: Path) -> None:
    engines = {level: CASES[name](tmp_path / "model", level) for level in ("whole", *offload.LEVELS[2:])}
    unoffloaded = engines.pop("whole")
    counts = (0, 1) if unoffloaded.capabilities.slots else (0,)
    expected = [draw(unoffloaded, REFERENCES[:count]) for count in counts]
    for level, engine in engines.items():
        for count, image in zip(counts, expected, strict=True):
            assert np.array_equal(draw(engine, REFERENCES[:count]), image), (level, count)
        with pytest.raises(Cancelled):
            engine.generate(make_request(), REFERENCES[: counts[-1]], stop_after(1, []))
        assert np.array_equal(draw(engine, REFERENCES[: counts[-1]]), expected[-1]), level
        assert engine.offload_levels == [level]
