"""What would make nothing quicker is refused before weights are loaded; what is taken changes no pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from support import tiny_pipelines as tiny
from support.generator_requests import draw

from pleinair.tools.diffusion.loading import open_pipeline
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
def unloaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the pipelines that are loaded."""
    loaded = list[str]()

    def noted(folder: Path, pipeline: str, *others: Any) -> Any:
        loaded.append(pipeline)
        return open_pipeline(folder, pipeline, *others)

    monkeypatch.setattr("pleinair.tools.diffusion.engine.open_pipeline", noted)
    return loaded


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("flesh", r"attention_backend = 'flesh': unknown; wanted one of: .*native"),
        ("flash_hub", "would load code"),
        ("_flash_3", "attention_backend = '_flash_3': Flash Attention 3 .* is not usable"),
    ],
)
def test_a_backend_that_is_not_here_is_refused_at_once(klein: str, name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        TextOnly(klein, attention_backend=name, **KLEIN)


def test_a_backend_is_taken_and_is_this_model_s_alone(klein: str) -> None:
    before = _AttentionBackendRegistry._active_backend
    engine = TextOnly(klein, attention_backend="_native_math", **KLEIN)
    assert np.abs(draw(engine).astype(int) - draw(TextOnly(klein, **KLEIN))).max() <= 1
    modules = engine._forms[engine.pipeline].transformer.modules()
    processors: list[Any] = [getattr(one, "processor", None) for one in modules]
    taken = {one._attention_backend for one in processors if hasattr(one, "_attention_backend")}
    assert taken == {AttentionBackendName._NATIVE_MATH}
    assert _AttentionBackendRegistry._active_backend == before


def test_a_class_that_takes_no_backend_is_told(tmp_path: Path) -> None:
    engine = TextOnly(str(tiny.save(tiny.sd15, tmp_path)), attention_backend="native", **SD15)
    with pytest.raises(BadInput, match="UNet2DConditionModel has no attention that takes a backend"):
        draw(engine)


def test_a_class_without_repeated_blocks_is_refused_before_its_weights(
    tmp_path: Path, unloaded: list[str]
) -> None:
    engine = TextOnly(str(tiny.save(tiny.omnigen, tmp_path)), compile=True, **OMNIGEN)
    with pytest.raises(
        BadInput, match=r"generator\.compile = true: .*OmniGenTransformer2DModel has no blocks"
    ):
        draw(engine)
    assert unloaded == []


def test_repeated_blocks_are_compiled(klein: str) -> None:
    """The compiler itself is told to let the blocks run as they are: it would take a minute."""
    engine = TextOnly(klein, compile=True, **KLEIN)
    with torch.compiler.set_stance("force_eager"):
        assert np.array_equal(draw(engine), draw(TextOnly(klein, **KLEIN)))
    blocks = engine._forms[engine.pipeline].transformer.modules()
    assert {type(one).__name__ for one in blocks if one._compiled_call_impl} == {
        "Flux2TransformerBlock",
        "Flux2SingleTransformerBlock",
    }
