"""What memory takes is told and heeded before a weight is placed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_pipelines as tiny
from support.generator_requests import REFERENCES, draw, make_request, stop_after

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.families import FLUX2, IN_CONTEXT
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.inpaint import parted
from pleinair.tools.diffusion.memory import GIB, Needs, choose, lower_to_weights, read_needs, room_on
from pleinair.tools.diffusion.offload import RUNGS, Ladder, OutOfMemory
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import BadInput

KLEIN = IN_CONTEXT["Flux2KleinPipeline"]
PLAIN = Needs(parts={"transformer": 800, "text_encoder": 900}, token=10.0, unit=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.klein, tmp_path_factory.mktemp("klein"))


def make_engine(folder: Path, **settings: Any) -> InContext:
    return InContext(
        str(folder), height=32, width=32, reference_size=32, max_sequence_length=24,
        text_encoder_out_layers=(0, 1), **settings,
    )  # fmt: skip


def needs_of(folder: Path) -> Needs:
    needs = read_needs(folder, KLEIN, 4)
    assert needs is not None
    return needs


@pytest.mark.parametrize(
    ("width", "tokens", "measured"),
    [(4096, 4608, 1.7e9), (4096, 16_896, 6.5e9), (6144, 9216, 5014 * 2**20)],
)
def test_the_estimate_is_near_what_was_measured(width: int, tokens: int, measured: float) -> None:
    assert FLUX2 * width * 2 * tokens == pytest.approx(measured, rel=0.1)


def test_weights_are_counted_as_they_are_loaded(folder: Path) -> None:
    engine = make_engine(folder)
    draw(engine)
    parts = [
        part for part in engine._forms[engine.pipeline].components.values() if hasattr(part, "state_dict")
    ]
    held = [{one.data_ptr(): one for one in part.state_dict().values()}.values() for part in parts]
    wanted = sum(one.numel() * one.element_size() for tensors in held for one in tensors)
    assert needs_of(folder).weights("whole") == wanted
    halved = read_needs(folder, KLEIN, 2)
    assert halved is not None and halved.weights("whole") == pytest.approx(wanted / 2, rel=0.01)


def test_the_unit_and_the_width_are_those_of_the_model(folder: Path) -> None:
    engine, needs = make_engine(folder), needs_of(folder)
    draw(engine)
    pipeline = engine._forms[engine.pipeline]
    assert needs.unit == pipeline.vae_scale_factor * engine.family.patch
    assert needs.token == FLUX2 * pipeline.transformer.inner_dim * 4


def test_of_a_family_that_nobody_measured_the_weights_are_known(folder: Path) -> None:
    needs = read_needs(folder, replace(KLEIN, activations=0.0), 4)
    assert needs is not None and needs.token == 0 and needs.parts == needs_of(folder).parts
    assert needs.text("whole", 0).startswith("at least ") and "for the weights alone" in needs.text(
        "whole", 0
    )


@pytest.mark.parametrize(
    ("room", "taken"),
    [(1700, ["whole"]), (1699, ["whole", "model_offload"]), (899, ["whole", "sequential_offload"])],
)
def test_weights_that_do_not_fit_are_not_tried(room: int, taken: list[str]) -> None:
    ladder = Ladder("cuda")
    lower_to_weights(ladder, replace(PLAIN, token=0.0), room)
    assert ladder.taken == taken  # never vae_tiling, which makes no weight smaller


def test_weights_that_fit_on_no_rung_are_refused() -> None:
    with pytest.raises(OutOfMemory, match=r"would not fit in memory: it takes at least .* with room for"):
        lower_to_weights(Ladder("cpu"), replace(PLAIN, token=0.0), 1699)


def test_every_engine_refuses_before_it_loads(tmp_path: Path) -> None:
    model = str(tiny.save(tiny.sd15, tmp_path))
    settings: dict[str, Any] = {"pipeline": "StableDiffusionPipeline", "height": 32, "width": 32}
    engine, seen = TextOnly(model, memory_limit=1e-6, **settings), list[tuple[int, int]]()
    with pytest.raises(OutOfMemory, match="for the weights alone"):
        engine.generate(make_request(), (), stop_after(1, seen))
    assert not seen and not engine._forms
    engine.memory_limit = 8.0
    draw(engine)
    with pytest.raises(BadInput, match=r"generator\.memory_limit = 0: input should be greater than 0"):
        TextOnly(model, memory_limit=0, **settings)


def test_a_variant_is_counted_once(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*"):
        copy = tmp_path / path.relative_to(folder)
        if path.is_dir():
            copy.mkdir()
        else:
            copy.write_bytes(path.read_bytes())
            if path.suffix == ".safetensors":
                copy.with_name(f"{path.stem}.fp16.safetensors").write_bytes(path.read_bytes())
    plain, variant = (read_needs(tmp_path, KLEIN, 4, name) for name in ("", "fp16"))
    assert plain == variant == needs_of(folder)


def test_each_rung_holds_less_than_the_one_above() -> None:
    assert [PLAIN.weights(rung) for rung in RUNGS] == [1700, 1700, 900, 0]
    assert PLAIN.bytes("model_offload", 7) == 970
    assert PLAIN.text("model_offload", 7) == (
        "about 9e-07 GiB on rung model_offload: 8.4e-07 of weights, 6.5e-08 for 7 tokens"
    )


def plan(limit: int | None) -> int:
    """Plan 100 tokens at best and 40 at least."""
    fitting = [size for size in (100, 70, 40) if limit is None or size <= limit]
    if not fitting:
        raise BadInput("too long")
    return fitting[0]


@pytest.mark.parametrize(
    ("room", "rung", "tokens"),
    [
        (2700, "whole", 100),
        (2699, "model_offload", 179),
        (1900, "model_offload", 100),
        (1899, "sequential_offload", 189),
        (400, "sequential_offload", 40),
    ],
)
def test_a_lower_rung_comes_before_smaller_references(room: int, rung: str, tokens: int) -> None:
    assert choose(PLAIN, RUNGS, room, plan) == (rung, tokens)


def test_references_get_smaller_where_no_rung_is_left() -> None:
    assert choose(PLAIN, RUNGS[:2], 2100, plan) == ("whole", 40)


@given(st.integers(0, 5000))
def test_what_is_chosen_fits(room: int) -> None:
    try:
        rung, tokens = choose(PLAIN, RUNGS, room, plan)
    except OutOfMemory:
        assert room < 400
        return
    assert PLAIN.bytes(rung, plan(tokens)) <= room


def test_a_refusal_names_the_figures() -> None:
    with pytest.raises(OutOfMemory, match=r"of weights, .* for 100 tokens \(an estimate\), with room for"):
        choose(PLAIN, RUNGS[:1], 1000, plan)


def test_without_a_limit_nothing_is_foreseen(folder: Path) -> None:
    assert room_on("cpu", None) is None
    assert room_on("cpu", 1.5) == 1.5 * GIB
    engine = make_engine(folder)
    draw(engine, images=REFERENCES[:2])
    assert engine.offload_levels == ["whole"]


def test_the_engine_takes_smaller_references(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    needs, free = needs_of(folder), make_engine(folder)
    wanted = free.plan(needs.unit, (32, 32), [image.size for image in REFERENCES[:2]]).tokens
    limit = needs.bytes("whole", wanted - 1) / GIB
    engine = make_engine(folder, memory_limit=limit)
    with caplog.at_level(logging.WARNING, "pleinair.tools.diffusion.in_context"):
        tight = draw(engine, images=REFERENCES[:2])
    assert f"not 32: the sequence is limited to {wanted - 1} tokens" in caplog.text
    assert (tight != draw(free, images=REFERENCES[:2])).any()
    assert (draw(engine) == draw(free)).all()  # without references there is room


def test_the_engine_refuses_before_it_loads(folder: Path) -> None:
    engine, seen = make_engine(folder, memory_limit=1e-6), list[tuple[int, int]]()
    with pytest.raises(
        OutOfMemory, match="on rung whole: .* Ask for a smaller picture, for fewer or smaller"
    ):
        engine.generate(make_request(), REFERENCES[:1], stop_after(1, seen))
    assert not seen and not engine._forms
    engine.memory_limit = 8.0
    engine.generate(make_request(), REFERENCES[:1], no_callback)


def test_the_engine_begins_on_the_rung_that_fits(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    needs = needs_of(folder)
    engine = make_engine(folder, memory_limit=needs.bytes("model_offload", 24 + 8 * 8) / GIB)
    engine._ladder = ladder = Ladder("cpu")
    ladder._rungs = RUNGS  # those of a device with offloading
    engine.foresee(parted(make_request(), ()))
    assert engine.offload_levels == ["whole", "model_offload"]
    assert "beginning with model_offload: about" in caplog.text


def test_what_is_free_on_cuda_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GIB)
    assert room_on("cuda", None) == 7 * GIB
    assert room_on("cuda:1", 4.0) == 4 * GIB


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="memory_limit = 0: input should be greater than 0"):
        InContext("pocket/generator", memory_limit=0)
