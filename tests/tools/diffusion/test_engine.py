"""What all diffusers backends share: settings, memory, non-finite numbers, and torch's untouched noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_pipelines as tiny
from support.generator_requests import REFERENCES, draw, loaded_pipeline, make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.engine import output_images
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.offload import (
    Offloading,
    OutOfMemory,
    find_device,
    find_dtype,
    is_out_of_memory,
)
from pleinair.tools.types import BadInput, ModelFault, Refused

Settings = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.klein, tmp_path_factory.mktemp("klein"))


def make_engine(folder: Path, **settings: Any) -> InContext:
    text = {"max_sequence_length": 24, "text_encoder_out_layers": (0, 1)}
    return InContext(str(folder), **{"height": 32, "width": 32, **text, **settings})


def run_out_of_memory(times: int) -> Callable[[int, int], None]:
    """Return a step callback that runs out of memory some number of times."""
    failures = iter(range(times))

    def on_step(done: int, total: int) -> None:
        if next(failures, None) is not None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    return on_step


def test_lack_of_memory_lowers_the_offload_level(folder: Path) -> None:
    engine = make_engine(folder)
    assert engine.offload_levels == []
    image = engine.generate(make_request(), (), run_out_of_memory(1))
    assert engine.offload_levels == ["whole", "vae_tiling"]
    assert np.array_equal(np.asarray(image), draw(engine))
    assert engine.offload_levels == ["whole", "vae_tiling"]


def test_a_model_that_does_not_fit_whole_is_offloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, place = list[str](), Offloading.place

    def record(offloading: Offloading, pipeline: Any, resident: Sequence[str] = ()) -> None:
        levels.append(offloading.level)
        if offloading.level == "whole":
            raise torch.OutOfMemoryError("CUDA out of memory")
        place(offloading, pipeline, resident)

    monkeypatch.setattr(Offloading, "place", record)
    engine = make_engine(folder)
    assert np.array_equal(draw(engine), draw(engine))
    assert levels == engine.offload_levels == ["whole", "vae_tiling"]


def test_lack_of_memory_at_the_last_level_gives_advice(folder: Path) -> None:
    engine = make_engine(folder, memory="vae_tiling")
    with pytest.raises(OutOfMemory, match="tried: vae_tiling; CUDA out of memory.*Use a smaller image"):
        engine.generate(make_request(), (), run_out_of_memory(9))


def test_other_errors_are_not_retried(folder: Path) -> None:
    engine, calls = make_engine(folder), []

    def on_step(done: int, total: int) -> None:
        calls.append(done)
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        engine.generate(make_request(), (), on_step)
    assert (calls, engine.offload_levels) == ([0], ["whole"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_recognised_by_class_or_text(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_cpu_has_no_offloading() -> None:
    with pytest.raises(BadInput, match="memory = 'model_offload': wanted one of: whole, vae_tiling on cpu"):
        Offloading("cpu", "model_offload")


def test_the_number_format_follows_the_device() -> None:
    assert find_dtype("cpu") is torch.float32
    assert find_dtype("cuda") is find_dtype("mps") is torch.bfloat16
    assert find_dtype("cuda", "float16") is torch.float16


def test_an_absent_device_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="device = 'abacus': not on this machine; wanted one of: auto"):
        draw(make_engine(folder, device="abacus"))
    assert find_device("cpu") == "cpu"


@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"attention_backend": "native"}])
def test_number_format_and_attention_backend_are_accepted(folder: Path, settings: Settings) -> None:
    assert draw(make_engine(folder, **settings), REFERENCES[:1]).shape == (32, 32, 3)


def test_overflow_at_a_step_is_a_model_fault(folder: Path) -> None:
    engine = make_engine(folder)
    draw(engine)
    break_weights(engine, "transformer")
    with pytest.raises(ModelFault, match="overflowed at step 1"):
        draw(engine)


def test_overflow_while_decoding_is_a_model_fault(folder: Path) -> None:
    engine = make_engine(folder)
    draw(engine)
    break_weights(engine, "vae")
    with pytest.raises(ModelFault, match="decoded to non-finite numbers"):
        draw(engine)


def break_weights(engine: InContext, part: str) -> None:
    weights = list(getattr(loaded_pipeline(engine), part).parameters())
    with torch.no_grad():
        weights[-1].fill_(float("nan"))


def test_a_blocked_image_is_a_refusal() -> None:
    output = SimpleNamespace(images=np.zeros((1, 8, 8, 3)), nsfw_content_detected=[True])
    with pytest.raises(Refused, match="safety checker of `x`"):
        output_images(None, output, "x")


def test_a_guidance_scale_is_refused_by_a_class_without_guidance(tmp_path: Path) -> None:
    folder = str(tiny.save(tiny.klein_kv, tmp_path))
    arguments: dict[str, Any] = {"pipeline": "Flux2KleinKVPipeline", "height": 32, "width": 32}
    assert "guidance_scale" not in InContext(folder, **arguments).capabilities.accepts
    with pytest.raises(BadInput, match=r"guidance_scale = 2\.0: Flux2KleinKVPipeline has no guidance"):
        InContext(folder, **arguments, guidance_scale=2.0)


def test_generating_does_not_consume_torchs_global_noise(folder: Path) -> None:
    engine = make_engine(folder)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    draw(engine, REFERENCES[:1])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"slots": 5}, "slots = 5: Flux2KleinPipeline takes at most 4"),
        ({"draft_steps": 4}, "draft_steps = 4: wanted less than 4"),
        ({"memory": "magic"}, "memory = 'magic': must be 'whole', 'vae_tiling', 'model_offload'"),
        ({"dtype": "int8"}, "dtype = 'int8': must be .*'float32'"),
        ({"nope": 1}, "generator.nope = 1: generator 'in_context' has no such argument; accepted: folder"),
        ({"height": 33}, "height = 33: must be a multiple of 8"),
        ({"height": "32"}, "height = '32': must be a whole number"),
        ({"height": 0}, "height = 0: must be greater than 0"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0: must be greater than 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale = nan: must be a finite number"),
        ({"memory_limit": 0}, "memory_limit = 0: must be greater than 0"),
        ({"max_sequence": 0}, "max_sequence = 0: must be greater than 0"),
        ({"attention_backend": "flash_hub"}, "attention_backend = 'flash_hub': would load code"),
        ({"options": {"prompt": "x"}}, r"options\.prompt: set by the request"),
        ({"options": {"image": "x"}}, r"options\.image: set by the request"),
        ({"options": {"negative_prompt": "x"}}, r"options\.negative_prompt: set by the request"),
    ],
)
def test_invalid_settings_are_refused(folder: Path, settings: Settings, text: str) -> None:
    with pytest.raises(BadInput, match=text):
        make_engine(folder, **settings)


def test_an_unknown_argument_is_refused_before_the_call(folder: Path) -> None:
    engine = make_engine(folder, options={"true_cfg_scale": 2.0})
    with pytest.raises(BadInput, match=r"options\.true_cfg_scale: Flux2KleinPipeline has no such argument"):
        engine.generate(make_request(), (), no_callback)


def test_a_negative_prompt_is_refused_where_there_is_none(folder: Path) -> None:
    with pytest.raises(BadInput, match="no negative prompt"):
        draw(make_engine(folder), negative_prompt="ice")


def test_slots_may_be_fewer_than_the_class_has(folder: Path) -> None:
    engine = make_engine(folder, slots=1)
    assert engine.capabilities.slots == 1
    with pytest.raises(BadInput, match="takes 1 references, got 2"):
        draw(engine, REFERENCES[:2])
