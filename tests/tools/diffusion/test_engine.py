"""What all engines share: settings, memory, broken numbers, and noise that stays where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_pipelines as tiny
from support.generator_requests import REFERENCES, draw, make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.call import to_picture
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.offload import Ladder, OutOfMemory, find_device, find_dtype, is_out_of_memory
from pleinair.tools.types import BadInput, ModelFault, Refused

Settings = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.klein, tmp_path_factory.mktemp("klein"))


def make_engine(folder: Path, **settings: Any) -> InContext:
    text = {"max_sequence_length": 24, "text_encoder_out_layers": (0, 1)}
    return InContext(str(folder), height=32, width=32, **{**text, **settings})


def short_of_memory(times: int) -> Callable[[int, int], None]:
    """Make a step callback that runs out of memory so many times."""
    left = [times]

    def on_step(done: int, total: int) -> None:
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    return on_step


def test_memory_that_runs_out_is_met_by_the_next_rung(folder: Path) -> None:
    engine = make_engine(folder)
    assert engine.offload_levels == []
    picture = engine.generate(make_request(), (), short_of_memory(1))
    assert engine.offload_levels == ["whole", "vae_tiling"]
    assert np.array_equal(np.asarray(picture), draw(engine))
    assert engine.offload_levels == ["whole", "vae_tiling"]


def test_a_model_that_does_not_fit_whole_is_placed_lower(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[str] = []
    real = Ladder.place

    def place(ladder: Ladder, pipeline: Any, resident: Sequence[str] = ()) -> None:
        placed.append(ladder.rung)
        if ladder.rung == "whole":
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(ladder, pipeline, resident)

    monkeypatch.setattr(Ladder, "place", place)
    engine = make_engine(folder)
    assert np.array_equal(draw(engine), draw(engine))
    assert placed == engine.offload_levels == ["whole", "vae_tiling"]


def test_the_last_rung_says_what_to_do(folder: Path) -> None:
    engine = make_engine(folder, memory="vae_tiling")
    with pytest.raises(OutOfMemory, match="tried: vae_tiling; CUDA out of memory.*Ask for a smaller picture"):
        engine.generate(make_request(), (), short_of_memory(9))


def test_other_faults_are_not_tried_again(folder: Path) -> None:
    engine, calls = make_engine(folder), []

    def on_step(done: int, total: int) -> None:
        calls.append(done)
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        engine.generate(make_request(), (), on_step)
    assert (calls, engine.offload_levels) == ([0], ["whole"])


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_known_by_its_class_or_text(error: Exception, means: bool) -> None:
    assert is_out_of_memory(error) is means


def test_the_cpu_has_no_offloading() -> None:
    with pytest.raises(BadInput, match="memory = 'model_offload': wanted one of: whole, vae_tiling on cpu"):
        Ladder("cpu", "model_offload")


def test_the_number_format_follows_the_device() -> None:
    assert find_dtype("cpu") is torch.float32
    assert find_dtype("cuda") is find_dtype("mps") is torch.bfloat16
    assert find_dtype("cuda", "float16") is torch.float16


def test_a_device_that_is_not_here_is_named(folder: Path) -> None:
    with pytest.raises(BadInput, match="device = 'abacus': not on this machine; wanted one of: auto"):
        draw(make_engine(folder, device="abacus"))
    assert find_device("cpu") == "cpu"


@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"attention_backend": "native"}])
def test_switches_still_draw(folder: Path, settings: Settings) -> None:
    assert draw(make_engine(folder, **settings), REFERENCES[:1]).shape == (32, 32, 3)


def test_numbers_that_overflow_while_drawing_are_a_fault(folder: Path) -> None:
    engine = make_engine(folder)
    draw(engine)
    break_weights(engine, "transformer")
    with pytest.raises(ModelFault, match="overflowed at step 1"):
        draw(engine)


def test_numbers_that_overflow_while_decoding_are_a_fault(folder: Path) -> None:
    engine = make_engine(folder)
    draw(engine)
    break_weights(engine, "vae")
    with pytest.raises(ModelFault, match="decoded to broken numbers"):
        draw(engine)


def break_weights(engine: InContext, part: str) -> None:
    weights = list(getattr(engine._forms[engine.pipeline], part).parameters())
    with torch.no_grad():
        weights[-1].fill_(float("nan"))


def test_a_blocked_picture_is_a_refusal() -> None:
    output = SimpleNamespace(images=np.zeros((1, 8, 8, 3)), nsfw_content_detected=[True])
    with pytest.raises(Refused, match="safety checker of `x`"):
        to_picture(None, output, "x")


def test_drawing_leaves_torchs_own_noise_alone(folder: Path) -> None:
    engine = make_engine(folder)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    draw(engine, REFERENCES[:1])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"slots": 5}, "slots = 5: Flux2KleinPipeline takes at most 4"),
        ({"draft_steps": 4}, "draft_steps = 4: wanted 1 to 3, or none"),
        ({"memory": "magic"}, "memory = 'magic': wanted one of: whole, vae_tiling, model_offload"),
        ({"dtype": "int8"}, "dtype = 'int8': wanted one of: float32"),
        ({"attention_backend": "flash_hub"}, "attention_backend = 'flash_hub': would load code"),
        ({"options": {"prompt": "x"}}, r"options\.prompt: set by the request"),
        ({"options": {"image": "x"}}, r"options\.image: set by the request"),
        ({"options": {"negative_prompt": "x"}}, r"options\.negative_prompt: set by the request"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(folder: Path, settings: Settings, text: str) -> None:
    with pytest.raises(BadInput, match=text):
        make_engine(folder, **settings)


def test_an_unknown_argument_is_refused_before_the_call(folder: Path) -> None:
    engine = make_engine(folder, options={"true_cfg_scale": 2.0})
    with pytest.raises(BadInput, match=r"options\.true_cfg_scale: Flux2KleinPipeline has no such argument"):
        engine.generate(make_request(), (), no_callback)


def test_a_negative_prompt_is_refused_where_there_is_none(folder: Path) -> None:
    with pytest.raises(BadInput, match="no negative prompt"):
        draw(make_engine(folder), negative_prompt="ice")


def test_fewer_slots_than_the_class_has_are_kept(folder: Path) -> None:
    engine = make_engine(folder, slots=1)
    assert engine.capabilities.slots == 1
    with pytest.raises(BadInput, match="takes 1 references, got 2"):
        draw(engine, REFERENCES[:2])
