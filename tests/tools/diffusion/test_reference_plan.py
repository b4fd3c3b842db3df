"""The predicted sequence is the real one, and what would be too long is made smaller or refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import REFERENCES, draw, make_request, stop_after

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.call import scaled
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.memory import Tokens, fit, make_plan, predict
from pleinair.tools.types import BadInput

KLEIN = Tokens(unit=16, text=512)
QWEN = Tokens(unit=16, text=512, area=1024 * 1024)
SQUARE = (1024, 1024)
PHOTO = (4000, 3000)
SIDES = st.integers(16, 3000)


@pytest.mark.parametrize(
    ("longest", "count", "tokens"),
    [(1024, 0, 4608), (512, 1, 4608 + 1024), (512, 4, 4608 + 4096), (1024, 3, 4608 + 3 * 4096)],
)
def test_flux2_klein_at_a_megapixel(longest: int, count: int, tokens: int) -> None:
    assert predict(KLEIN, SQUARE, [(2048, 2048)] * count, longest) == tokens


def test_a_reference_keeps_its_shape_and_is_never_scaled_up() -> None:
    assert fit(PHOTO, 512) == (512, 384)
    assert fit((100, 50), 512) == (100, 50)
    assert predict(KLEIN, SQUARE, [(100, 50)], 512) == 4608 + 6 * 3


def test_what_a_class_scales_by_itself_costs_the_same_at_any_size() -> None:
    assert {predict(QWEN, SQUARE, [SQUARE], longest) for longest in (128, 512, 1024)} == {4608 + 4096}


@given(SIDES, SIDES, st.integers(16, 1024))
def test_the_size_is_pillows(width: int, height: int, longest: int) -> None:
    ours, theirs = fit((width, height), longest), scaled(Image.new("L", (width, height)), longest).size
    assert all(abs(one - other) <= 1 for one, other in zip(ours, theirs, strict=True))


@given(st.lists(st.tuples(SIDES, SIDES), max_size=6), st.integers(4608, 30_000))
def test_a_plan_is_within_the_limit_and_no_smaller_than_it_must_be(
    references: list[tuple[int, int]], limit: int
) -> None:
    try:
        plan = make_plan(KLEIN, SQUARE, references, longest=512, limit=limit)
    except BadInput:
        assert predict(KLEIN, SQUARE, references, 128) > limit
        return
    assert plan.tokens == predict(KLEIN, SQUARE, references, plan.size) <= limit
    assert plan.size == 512 or predict(KLEIN, SQUARE, references, 512) > limit


def test_without_a_limit_the_declared_size_stays() -> None:
    assert make_plan(KLEIN, SQUARE, [PHOTO] * 6, longest=1024).size == 1024


@pytest.mark.parametrize(("limit", "size"), [(8704, 512), (8703, 384), (6000, 256), (5000, 128)])
def test_references_shrink_in_steps(limit: int, size: int) -> None:
    assert make_plan(KLEIN, SQUARE, [SQUARE] * 4, longest=512, limit=limit).size == size


@pytest.mark.parametrize(
    ("tokens", "count", "says"),
    [
        (KLEIN, 4, "with 4 references of 128 pixels .* limit of 4700 .* fewer references or a smaller"),
        (QWEN, 1, "with 1 references of 128 pixels is a sequence of 8704"),
        (Tokens(unit=8, text=512), 0, "1024 × 1024 is a sequence of 16896 tokens.*: ask for a smaller"),
    ],
)
def test_what_cannot_be_made_small_enough_is_refused(tokens: Tokens, count: int, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make_plan(tokens, SQUARE, [SQUARE] * count, longest=512, limit=4700)


def make_engine(folder: Path, kind: Callable[[], Any], pipeline: str, **settings: Any) -> InContext:
    return InContext(
        str(tiny.save(kind, folder)), pipeline=pipeline, height=32, width=32, reference_size=32,
        max_sequence_length=24, **settings,
    )  # fmt: skip


def longest_seen(engine: InContext, count: int) -> int:
    """Draw, and give the longest sequence that the transformer was given."""
    seen: list[int] = []

    def look(_: Any, __: Any, given: dict[str, Any]) -> None:
        seen.append(given["hidden_states"].shape[1] + given["encoder_hidden_states"].shape[1])

    pipeline = engine._forms[engine.pipeline]
    hook = pipeline.transformer.register_forward_pre_hook(look, with_kwargs=True)
    draw(engine, images=REFERENCES[:count])
    hook.remove()
    return max(seen)


LAYERS = {"text_encoder_out_layers": (0, 1)}


@pytest.mark.parametrize(
    ("kind", "pipeline", "settings"),
    [
        (tiny.klein, "Flux2KleinPipeline", LAYERS),
        (tiny.klein_kv, "Flux2KleinKVPipeline", LAYERS),
        (tiny.flux2, "Flux2Pipeline", LAYERS),
    ],
)
def test_the_prediction_is_what_the_transformer_gets(
    tmp_path: Path, kind: Callable[[], Any], pipeline: str, settings: dict[str, Any]
) -> None:
    engine = make_engine(tmp_path, kind, pipeline, **settings)
    draw(engine)
    loaded = engine._forms[pipeline]
    unit = loaded.vae_scale_factor * engine.family.patch
    for count in (0, 1, engine.capabilities.slots):
        planned = engine.plan(unit, (32, 32), [image.size for image in REFERENCES[:count]])
        assert planned.tokens == longest_seen(engine, count)


def test_the_engine_gives_smaller_references_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(tmp_path, tiny.klein, "Flux2KleinPipeline", **LAYERS)
    draw(engine, images=REFERENCES[:2])
    free = longest_seen(engine, 2)
    engine.max_sequence = free - 1
    with caplog.at_level(logging.WARNING, "pleinair.tools.diffusion.in_context"):
        assert longest_seen(engine, 2) < free
    assert f"not 32: the sequence is limited to {free - 1} tokens" in caplog.text


def test_the_engine_refuses_before_a_step_is_done(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, tiny.klein, "Flux2KleinPipeline", max_sequence=30, **LAYERS)
    seen: list[tuple[int, int]] = []
    with pytest.raises(BadInput, match="over the limit of 30"):
        engine.generate(make_request(), REFERENCES[:1], stop_after(1, seen))
    assert not seen
    engine.max_sequence = None
    engine.generate(make_request(), REFERENCES[:1], no_callback)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="max_sequence = 0: input should be greater than or equal to 1"):
        InContext("pocket/generator", max_sequence=0)
