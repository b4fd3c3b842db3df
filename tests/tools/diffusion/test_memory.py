"""Memory is estimated, and the offload level chosen, before a weight is placed."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_pipelines as tiny
from support.generator_requests import (
    REFERENCES,
    change_settings,
    draw,
    loaded_pipeline,
    make_request,
    stop_after,
)

from pleinair.tools.diffusion.families import FLUX2, IN_CONTEXT
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.inpaint import prepare
from pleinair.tools.diffusion.memory import (
    GIB,
    MemoryEstimate,
    available_memory,
    choose_level,
    fit_weights,
    read_estimate,
)
from pleinair.tools.diffusion.offload import LEVELS, Offloading, OutOfMemory
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import BadInput

KLEIN = IN_CONTEXT["Flux2KleinPipeline"]
ESTIMATE = MemoryEstimate(parts={"transformer": 800, "text_encoder": 900}, token_bytes=10.0, unit=16)
WEIGHTS_ONLY = replace(ESTIMATE, token_bytes=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.klein, tmp_path_factory.mktemp("klein"))


def make_engine(folder: Path, **settings: Any) -> InContext:
    return InContext(
        str(folder), height=32, width=32, reference_size=32, max_sequence_length=24,
        text_encoder_out_layers=(0, 1), **settings,
    )  # fmt: skip


def estimate_of(folder: Path) -> MemoryEstimate:
    estimate = read_estimate(folder, KLEIN, 4)
    assert estimate is not None
    return estimate


@pytest.mark.parametrize(
    ("width", "tokens", "measured"),
    [(4096, 4608, 1.7e9), (4096, 16_896, 6.5e9), (6144, 9216, 5014 * 2**20)],
)
def test_the_estimate_is_near_the_measurements(width: int, tokens: int, measured: float) -> None:
    assert FLUX2 * width * 2 * tokens == pytest.approx(measured, rel=0.1)


def test_weights_are_counted_as_they_are_loaded(folder: Path) -> None:
    engine = make_engine(folder)
    draw(engine)
    components = loaded_pipeline(engine).components.values()
    states = [part.state_dict().values() for part in components if hasattr(part, "state_dict")]
    tensors = [{tensor.data_ptr(): tensor for tensor in state}.values() for state in states]
    size = sum(tensor.numel() * tensor.element_size() for part in tensors for tensor in part)
    assert estimate_of(folder).weights("whole") == size
    halved = read_estimate(folder, KLEIN, 2)
    assert halved is not None and halved.weights("whole") == pytest.approx(size / 2, rel=0.01)


def test_the_unit_and_the_width_are_those_of_the_model(folder: Path) -> None:
    engine, estimate = make_engine(folder), estimate_of(folder)
    draw(engine)
    pipeline = loaded_pipeline(engine)
    assert estimate.unit == pipeline.vae_scale_factor * engine.family.patch
    assert estimate.token_bytes == FLUX2 * pipeline.transformer.inner_dim * 4


def test_only_the_weights_of_an_unmeasured_family_are_known(folder: Path) -> None:
    estimate = read_estimate(folder, replace(KLEIN, activations=0.0), 4)
    assert estimate == replace(estimate_of(folder), token_bytes=0)
    text = estimate.describe("whole", 0)
    assert text.startswith("at least ") and "for the weights alone" in text


@pytest.mark.parametrize(
    ("room", "levels"),
    [(1700, ["whole"]), (1699, ["whole", "model_offload"]), (899, ["whole", "sequential_offload"])],
)
def test_levels_at_which_the_weights_do_not_fit_are_skipped(room: int, levels: list[str]) -> None:
    offloading = Offloading("cuda")
    fit_weights(offloading, WEIGHTS_ONLY, room)
    assert offloading.history == levels  # never vae_tiling, which makes no weight smaller


def test_weights_that_fit_at_no_level_are_refused() -> None:
    with pytest.raises(OutOfMemory, match=r"would not fit in memory: it takes at least .* with room for"):
        fit_weights(Offloading("cpu"), WEIGHTS_ONLY, 1699)


def test_every_backend_refuses_before_it_loads(tmp_path: Path) -> None:
    model = str(tiny.save(tiny.sd15, tmp_path))
    settings: dict[str, Any] = {"pipeline": "StableDiffusionPipeline", "height": 32, "width": 32}
    engine, calls = TextOnly(model, memory_limit=1e-6, **settings), list[tuple[int, int]]()
    with pytest.raises(OutOfMemory, match="for the weights alone"):
        engine.generate(make_request(), (), stop_after(1, calls))
    assert not calls and not engine._pipelines
    change_settings(engine, memory_limit=8.0)
    draw(engine)


def test_a_variant_is_counted_once(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    for path in list(copy.rglob("*.safetensors")):
        shutil.copy(path, path.with_name(f"{path.stem}.fp16.safetensors"))
    first_set, variant = (read_estimate(copy, KLEIN, 4, name) for name in ("", "fp16"))
    assert first_set == variant == estimate_of(folder)


def test_each_level_holds_no_more_weights_than_the_one_above() -> None:
    assert [ESTIMATE.weights(level) for level in LEVELS] == [1700, 1700, 900, 0]
    assert ESTIMATE.total("model_offload", 7) == 970
    assert ESTIMATE.describe("model_offload", 7) == (
        "about 9e-07 GiB at offload level model_offload: 8.4e-07 of weights, 6.5e-08 for 7 tokens"
    )


def plan(limit: int | None) -> int:
    """Plan 100 tokens at best and 40 at least."""
    fitting = [size for size in (100, 70, 40) if limit is None or size <= limit]
    if not fitting:
        raise BadInput("too long")
    return fitting[0]


@pytest.mark.parametrize(
    ("room", "level", "tokens"),
    [
        (2700, "whole", 100),
        (2699, "model_offload", 179),
        (1900, "model_offload", 100),
        (1899, "sequential_offload", 189),
        (400, "sequential_offload", 40),
    ],
)
def test_a_lower_level_is_preferred_to_smaller_references(room: int, level: str, tokens: int) -> None:
    assert choose_level(ESTIMATE, LEVELS, room, plan) == (level, tokens)


def test_references_get_smaller_if_no_level_is_left() -> None:
    assert choose_level(ESTIMATE, LEVELS[:2], 2100, plan) == ("whole", 40)


@given(st.integers(0, 5000))
def test_the_chosen_level_has_room(room: int) -> None:
    try:
        level, tokens = choose_level(ESTIMATE, LEVELS, room, plan)
    except OutOfMemory:
        assert room < 400
        return
    assert ESTIMATE.total(level, plan(tokens)) <= room


def test_a_refusal_names_the_figures() -> None:
    with pytest.raises(OutOfMemory, match=r"of weights, .* for 100 tokens \(an estimate\), with room for"):
        choose_level(ESTIMATE, LEVELS[:1], 1000, plan)


def test_without_a_limit_the_level_stays(folder: Path) -> None:
    assert available_memory("cpu", None) is None
    assert available_memory("cpu", 1.5) == 1.5 * GIB
    engine = make_engine(folder)
    draw(engine, images=REFERENCES[:2])
    assert engine.offload_levels == ["whole"]


def test_the_engine_sends_smaller_references(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    estimate, unlimited = estimate_of(folder), make_engine(folder)
    tokens = unlimited.plan(estimate.unit, (32, 32), [image.size for image in REFERENCES[:2]]).tokens
    engine = make_engine(folder, memory_limit=estimate.total("whole", tokens - 1) / GIB)
    with caplog.at_level(logging.WARNING, "pleinair.tools.diffusion.in_context"):
        pixels = draw(engine, images=REFERENCES[:2])
    assert f"not 32: the sequence is limited to {tokens - 1} tokens" in caplog.text
    assert (pixels != draw(unlimited, images=REFERENCES[:2])).any()
    assert (draw(engine) == draw(unlimited)).all()  # without references there is room


def test_an_image_that_does_not_fit_is_refused_before_loading(folder: Path) -> None:
    engine, calls = make_engine(folder, memory_limit=1e-6), list[tuple[int, int]]()
    with pytest.raises(OutOfMemory, match="at offload level whole: .* Use a smaller image, fewer or smaller"):
        engine.generate(make_request(), REFERENCES[:1], stop_after(1, calls))
    assert not calls and not engine._pipelines
    change_settings(engine, memory_limit=8.0)
    draw(engine, REFERENCES[:1])


def test_the_engine_begins_at_the_level_that_fits(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = make_engine(folder, memory_limit=estimate_of(folder).total("model_offload", 24 + 8 * 8) / GIB)
    offloading = Offloading("cpu")
    offloading._levels = LEVELS  # those of a device with offloading
    engine.choose_offload_level(prepare(make_request(), ()), offloading)
    assert offloading.history == ["whole", "model_offload"]
    assert "lowered to model_offload: about" in caplog.text


def test_free_memory_on_cuda_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GIB)
    assert available_memory("cuda", None) == 7 * GIB
    assert available_memory("cuda:1", 4.0) == 4 * GIB
