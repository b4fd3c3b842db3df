"""Switches for speed: refused before loading if they have no effect, and without effect on pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from support import tiny_pipelines as tiny
from support.generator_requests import draw, loaded_pipeline

from pleinair.tools.diffusion import loading
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import BadInput

KLEIN: dict[str, Any] = {
    "pipeline": "Flux2KleinPipeline", "height": 32, "width": 32,
    "options": {"max_sequence_length": 24, "text_encoder_out_layers": (0, 1)},
}  # fmt: skip
OMNIGEN: dict[str, Any] = {"pipeline": "OmniGenPipeline", "height": 32, "width": 32}
SD15: dict[str, Any] = {"pipeline": "StableDiffusionPipeline", "height": 32, "width": 32}


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(tiny.klein, tmp_path_factory.mktemp("klein")))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the pipelines that are loaded."""
    loads, open_pipeline = list[str](), loading.open_pipeline

    def record(folder: Path, pipeline: str, *others: Any) -> Any:
        loads.append(pipeline)
        return open_pipeline(folder, pipeline, *others)

    monkeypatch.setattr(loading, "open_pipeline", record)
    return loads


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flesh", r"attention_backend = 'flesh': unknown; wanted one of: .*native"),
        ("flash_hub", "would load code"),
        ("_flash_3", "attention_backend = '_flash_3': Flash Attention 3 .* is not usable"),
    ],
)
def test_an_unavailable_attention_backend_is_refused_at_once(klein: str, name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        TextOnly(klein, attention_backend=name, **KLEIN)


def test_an_attention_backend_is_used_by_this_model_only(klein: str) -> None:
    before = _AttentionBackendRegistry._active_backend
    engine = TextOnly(klein, attention_backend="_native_math", **KLEIN)
    assert np.abs(draw(engine).astype(int) - draw(TextOnly(klein, **KLEIN))).max() <= 1
    modules = loaded_pipeline(engine).transformer.modules()
    processors: list[Any] = [getattr(module, "processor", None) for module in modules]
    backends = {getattr(processor, "_attention_backend", None) for processor in processors} - {None}
    assert backends == {AttentionBackendName._NATIVE_MATH}
    assert _AttentionBackendRegistry._active_backend == before


def test_a_class_without_attention_backends_is_refused(tmp_path: Path) -> None:
    engine = TextOnly(str(tiny.save(tiny.sd15, tmp_path)), attention_backend="native", **SD15)
    with pytest.raises(BadInput, match="UNet2DConditionModel has no attention that accepts a backend"):
        draw(engine)


def test_a_class_without_repeated_blocks_is_refused_before_its_weights(
    tmp_path: Path, loads: list[str]
) -> None:
    engine = TextOnly(str(tiny.save(tiny.omnigen, tmp_path)), compile=True, **OMNIGEN)
    with pytest.raises(
        BadInput, match=r"generator\.compile = true: .*OmniGenTransformer2DModel has no blocks"
    ):
        draw(engine)
    assert loads == []


def test_repeated_blocks_are_compiled(klein: str) -> None:
    """The compiler itself runs the blocks as they are: compiling would take a minute."""
    engine = TextOnly(klein, compile=True, **KLEIN)
    with torch.compiler.set_stance("force_eager"):
        assert np.array_equal(draw(engine), draw(TextOnly(klein, **KLEIN)))
    modules = loaded_pipeline(engine).transformer.modules()
    assert {type(module).__name__ for module in modules if module._compiled_call_impl} == {
        "Flux2TransformerBlock",
        "Flux2SingleTransformerBlock",
    }
