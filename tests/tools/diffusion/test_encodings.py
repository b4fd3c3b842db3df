"""What was encoded is used again: fewer calls of the encoders, the same pixels, within a limit of bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import LINEAR, RADIAL, draw, loaded_pipeline, make_request

from pleinair.tools.diffusion.controlnet import ControlNet
from pleinair.tools.diffusion.encodings import Encodings
from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.ip_adapter import IpAdapter
from pleinair.tools.diffusion.text_only import TextOnly

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
KLEIN = {"max_sequence_length": 24, "text_encoder_out_layers": (0, 1)}
ADAPTER = {"adapter_subfolder": "models", "adapter_weight": "plus.safetensors"}
CASES: dict[str, tuple[type[DiffusersEngine], Callable[[], Any], dict[str, Any]]] = {
    "Flux2KleinPipeline": (InContext, tiny.klein, KLEIN),
    "Flux2KleinKVPipeline": (InContext, tiny.klein_kv, KLEIN),
    "Flux2Pipeline": (InContext, tiny.flux2, KLEIN),
    "FluxKontextPipeline": (
        InContext, tiny.kontext, {"max_sequence_length": 24, "options": {"_auto_resize": False}}
    ),
    "QwenImageEditPlusPipeline": (InContext, tiny.qwen_edit, {}),
    "ZImageOmniPipeline": (InContext, tiny.z_image_omni, {"max_sequence_length": 24}),
    "StableDiffusionXLPipeline": (IpAdapter, tiny.sdxl, ADAPTER),
    "StableDiffusionControlNetPipeline": (ControlNet, tiny.sd15, {}),
    "StableDiffusion3ControlNetPipeline": (ControlNet, tiny.sd3, {}),
    "FluxControlNetPipeline": (ControlNet, tiny.flux1, {}),
    **{name: (TextOnly, *case) for name, case in tiny.TEXT_ONLY.items() if "Klein" not in name},
}  # fmt: skip
BRANCHES = {tiny.sd15: tiny.branch_sd15, tiny.sd3: tiny.branch_sd3, tiny.flux1: tiny.branch_flux1}
Engines = Callable[..., DiffusersEngine]


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Return a function that builds an engine of a class on the same weights, with settings."""
    folders: dict[str, Path] = {}
    qwen = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus"
    monkeypatch.setattr(f"{qwen}.VAE_IMAGE_SIZE", 32 * 32)  # a megapixel otherwise
    monkeypatch.setattr(f"{qwen}.CONDITION_IMAGE_SIZE", 64 * 64)

    def make(pipeline: str, **settings: Any) -> DiffusersEngine:
        backend, model, arguments = CASES[pipeline]
        if backend is TextOnly:
            arguments = {"options": arguments}
        folder = folders.get(pipeline) or folders.setdefault(pipeline, tiny.save(model, tmp_path / "base"))
        if backend is ControlNet:
            arguments = {"controlnet_folder": str(tmp_path / "branch")}
            tiny.save(BRANCHES[model], tmp_path / "branch")
        if backend is IpAdapter:
            arguments = {**arguments, "adapter_folder": str(tmp_path / "adapter")}
            if not (tmp_path / "adapter").exists():
                tiny.save_ip_adapter(model().unet, tmp_path / "adapter")
        return backend(str(folder), pipeline=pipeline, height=32, width=32, **arguments, **settings)

    return make


def attempts(engine: DiffusersEngine) -> list[bytes]:
    """Draw as a run does: a draft, a reference, one more, the first alone again with another seed."""
    shown = [(), (LINEAR,), (LINEAR, RADIAL), (LINEAR,)]
    calls = [(images[: engine.capabilities.slots], number // 2) for number, images in enumerate(shown)]
    return [draw(engine, images, seed=seed).tobytes() for images, seed in calls]


@pytest.mark.parametrize("pipeline", CASES)
def test_images_are_the_same_with_and_without_the_cache(engines: Engines, pipeline: str) -> None:
    cached, plain = engines(pipeline), engines(pipeline, encoding_cache=0)
    assert attempts(cached) == attempts(plain)
    assert (plain.encodings.hits, plain.encodings.misses) == (0, 0)
    if pipeline != "OmniGenPipeline":  # it has no encoder of texts
        assert cached.encodings.hits >= 2  # each class of a pipeline encodes for itself


def test_an_encoder_runs_once_for_each_text_and_reference(engines: Engines) -> None:
    engine, calls = engines("Flux2KleinPipeline"), list[str]()
    draw(engine)  # it is loaded
    for name in ("text_encoder", "vae"):
        module = getattr(loaded_pipeline(engine), name)
        module = module.encoder if name == "vae" else module
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    draw(engine, [LINEAR], prompt="a wren")
    draw(engine, [LINEAR], prompt="a wren", seed=1)
    assert calls == ["text_encoder", "vae"]
    draw(engine, [RADIAL], prompt="a wren")
    draw(engine, [LINEAR], prompt="a tit")
    assert calls == ["text_encoder", "vae", "vae", "text_encoder"]
    altered = LINEAR.copy()
    altered.putpixel((0, 0), (255, 0, 0))
    draw(engine, [altered], prompt="a tit")
    assert calls[4:] == ["vae"]


def test_lack_of_memory_empties_the_cache_before_it_lowers_the_offload_level(engines: Engines) -> None:
    engine = engines("Flux2KleinPipeline")
    first = draw(engine)

    def on_step(done: int, total: int) -> None:
        if not done and engine.encodings.size:
            raise torch.OutOfMemoryError("CUDA out of memory")

    image = engine.generate(make_request(), (), on_step)
    assert image.tobytes() == first.tobytes()
    assert engine.offload_levels == ["whole"]


class Part:
    """Pipeline that encodes a text as its bytes, which its caller changes in place."""

    def __init__(self) -> None:
        self.vae, self.calls = self, list[str]()

    def encode_prompt(self, text: object, size: int = 4) -> list[torch.Tensor]:
        self.calls.append(str(text))
        return [torch.full((size,), float(len(str(text))))]

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return image


def test_the_least_used_values_leave_within_the_limit() -> None:
    part, cache = Part(), Encodings(40)  # bytes: two texts of 16
    with cache.used_by(part):
        for text in ("a", "bb", "a", "ccc", "a", "bb"):
            value = part.encode_prompt(text)[0]
            assert value.tolist() == [float(len(text))] * 4
            value.zero_()
        part.encode_prompt("large", size=11)
    assert part.calls == ["a", "bb", "ccc", "bb", "large"]
    assert (cache.hits, cache.misses, cache.size) == (2, 5, 32)
    assert "encode_prompt" not in vars(part)
    part.encode_prompt("a")
    assert part.calls[-1] == "a"


def test_what_has_no_known_content_is_not_cached() -> None:
    part, cache = Part(), Encodings(2**20)
    with cache.used_by(part):
        for _ in range(2):
            part.encode_prompt(object())
            part.encode_prompt(Image.new("L", (2, 2)))
    assert len(part.calls) == 3
