"""References: their planned sequence is the real one, shortened or refused if too long; prompts name them."""

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
from support.generator_requests import (
    REFERENCES,
    change_settings,
    draw,
    loaded_pipeline,
    make_request,
    stop_after,
)

from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.references import (
    REFERENCE_SENTENCE,
    TokenRule,
    append_sentences,
    insert_placeholders,
    plan_references,
    scale_reference,
    scaled_size,
    sequence_length,
)
from pleinair.tools.prompt_options import without_placeholders
from pleinair.tools.types import BadInput

KLEIN = TokenRule(unit=16, text=512)
QWEN = TokenRule(unit=16, text=512, area=1024 * 1024)
SQUARE = (1024, 1024)
PHOTO = (4000, 3000)
SIDES = st.integers(16, 3000)
LAYERS = {"text_encoder_out_layers": (0, 1)}
FIRST, SECOND = "<img><|image_1|></img>", "<img><|image_2|></img>"


@pytest.mark.parametrize(
    ("longest", "count", "tokens"),
    [(1024, 0, 4608), (512, 1, 4608 + 1024), (512, 4, 4608 + 4096), (1024, 3, 4608 + 3 * 4096)],
)
def test_flux2_klein_at_a_megapixel(longest: int, count: int, tokens: int) -> None:
    assert sequence_length(KLEIN, SQUARE, [(2048, 2048)] * count, longest) == tokens


def test_a_reference_keeps_its_shape_and_is_never_scaled_up() -> None:
    assert scaled_size(PHOTO, 512) == (512, 384)
    assert scaled_size((100, 50), 512) == (100, 50)
    assert sequence_length(KLEIN, SQUARE, [(100, 50)], 512) == 4608 + 6 * 3


def test_a_class_that_scales_references_itself_needs_the_same_tokens_for_any_size() -> None:
    assert {sequence_length(QWEN, SQUARE, [SQUARE], side) for side in (128, 512, 1024)} == {4608 + 4096}


@given(SIDES, SIDES, st.integers(16, 1024))
def test_the_size_is_pillows(width: int, height: int, longest: int) -> None:
    ours = scaled_size((width, height), longest)
    theirs = scale_reference(Image.new("L", (width, height)), longest).size
    assert all(abs(side - other) <= 1 for side, other in zip(ours, theirs, strict=True))


@given(st.lists(st.tuples(SIDES, SIDES), max_size=6), st.integers(4608, 30_000))
def test_a_plan_is_within_the_limit_and_no_smaller_than_necessary(
    references: list[tuple[int, int]], limit: int
) -> None:
    try:
        plan = plan_references(KLEIN, SQUARE, references, longest=512, limit=limit)
    except BadInput:
        assert sequence_length(KLEIN, SQUARE, references, 128) > limit
        return
    assert plan.tokens == sequence_length(KLEIN, SQUARE, references, plan.size) <= limit
    assert plan.size == 512 or sequence_length(KLEIN, SQUARE, references, 512) > limit


def test_without_a_limit_the_declared_size_stays() -> None:
    assert plan_references(KLEIN, SQUARE, [PHOTO] * 6, longest=1024).size == 1024


@pytest.mark.parametrize(("limit", "size"), [(8704, 512), (8703, 384), (6000, 256), (5000, 128)])
def test_references_shrink_in_steps(limit: int, size: int) -> None:
    assert plan_references(KLEIN, SQUARE, [SQUARE] * 4, longest=512, limit=limit).size == size


@pytest.mark.parametrize(
    ("rule", "count", "message"),
    [
        (KLEIN, 4, "with 4 references of 128 pixels .* limit of 4700 .* Use fewer references or a smaller"),
        (QWEN, 1, "with 1 references of 128 pixels is a sequence of 8704"),
        (TokenRule(unit=8, text=512), 0, "1024 × 1024 pixels is a sequence of 16896 .* Use a smaller"),
    ],
)
def test_too_long_a_sequence_is_refused(rule: TokenRule, count: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        plan_references(rule, SQUARE, [SQUARE] * count, longest=512, limit=4700)


def make_engine(folder: Path, make: Callable[[], Any], pipeline: str, **settings: Any) -> InContext:
    return InContext(
        str(tiny.save(make, folder)), pipeline=pipeline, height=32, width=32, reference_size=32,
        max_sequence_length=24, **settings,
    )  # fmt: skip


def longest_sequence(engine: InContext, count: int) -> int:
    """Generate an image and return the longest sequence that reached the transformer."""
    lengths: list[int] = []

    def record(_: Any, __: Any, tensors: dict[str, Any]) -> None:
        lengths.append(tensors["hidden_states"].shape[1] + tensors["encoder_hidden_states"].shape[1])

    hook = loaded_pipeline(engine).transformer.register_forward_pre_hook(record, with_kwargs=True)
    draw(engine, images=REFERENCES[:count])
    hook.remove()
    return max(lengths)


@pytest.mark.parametrize(
    ("make", "pipeline"),
    [
        (tiny.klein, "Flux2KleinPipeline"),
        (tiny.klein_kv, "Flux2KleinKVPipeline"),
        (tiny.flux2, "Flux2Pipeline"),
    ],
)
def test_the_plan_is_the_transformers_sequence(
    tmp_path: Path, make: Callable[[], Any], pipeline: str
) -> None:
    engine = make_engine(tmp_path, make, pipeline, **LAYERS)
    draw(engine)
    unit = loaded_pipeline(engine).vae_scale_factor * engine.family.patch
    for count in (0, 1, engine.capabilities.slots):
        plan = engine.plan(unit, (32, 32), [image.size for image in REFERENCES[:count]])
        assert plan.tokens == longest_sequence(engine, count)


def test_the_engine_sends_smaller_references_and_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(tmp_path, tiny.klein, "Flux2KleinPipeline", **LAYERS)
    draw(engine, images=REFERENCES[:2])
    unlimited = longest_sequence(engine, 2)
    change_settings(engine, max_sequence=unlimited - 1)
    with caplog.at_level(logging.WARNING, "pleinair.tools.diffusion.in_context"):
        assert longest_sequence(engine, 2) < unlimited
    assert f"not 32: the sequence is limited to {unlimited - 1} tokens" in caplog.text


def test_the_engine_refuses_before_the_first_step(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, tiny.klein, "Flux2KleinPipeline", max_sequence=30, **LAYERS)
    calls: list[tuple[int, int]] = []
    with pytest.raises(BadInput, match="over the limit of 30"):
        engine.generate(make_request(), REFERENCES[:1], stop_after(1, calls))
    assert not calls
    change_settings(engine, max_sequence=None)
    draw(engine, REFERENCES[:1])


def test_placeholders_name_what_each_reference_shows() -> None:
    prompt = insert_placeholders("a finch on ice", ["finch"], 2)
    assert prompt == f"According to these images of finch: {FIRST}, {SECOND}, generate a finch on ice"


def test_a_prompt_with_its_placeholders_is_unchanged() -> None:
    prompt = f"a finch like {FIRST} on ice"
    assert insert_placeholders(prompt, ["finch"], 1) == prompt
    assert insert_placeholders("a finch", [], 0) == "a finch"


@pytest.mark.parametrize("name", ["<|image_1|>", "<img><|image_1|></img>", "<img> <|image_1|> </img>"])
def test_a_placeholder_is_understood_without_its_frame_and_the_others_are_added(name: str) -> None:
    assert insert_placeholders(f"my cat {name} on ice", [], 1) == f"my cat {FIRST} on ice"
    prompt = insert_placeholders(f"my cat {name} by a finch", ["", "finch"], 2)
    assert prompt == f"According to these images of finch: {SECOND}, generate my cat {FIRST} by a finch"


@pytest.mark.parametrize(
    ("prompt", "count", "words"),
    [
        ("like <|image_2|>", 1, r"<\|image_2\|> names an image that does not exist; 1 input image comes"),
        (f"like {FIRST}", 0, r"<\|image_1\|> names .*; no input images come with it"),
        (
            "like <|image_0|>",
            2,
            r"<\|image_0\|> names .*; 2 input images come .*Number the input images from 1",
        ),
    ],
)
def test_placeholders_of_other_references_are_refused(prompt: str, count: int, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        insert_placeholders(prompt, [], count)


def test_a_query_has_no_placeholders() -> None:
    assert without_placeholders(f"my cat <|image_1|> by {SECOND}, on ice") == "my cat by , on ice"


def test_an_input_image_has_no_sentence_and_keeps_its_number() -> None:
    prompt = append_sentences("my cat by a finch", ["", "finch"], REFERENCE_SENTENCE)
    assert prompt == "my cat by a finch. Image 2 shows finch."
    assert append_sentences("my cat", [""], REFERENCE_SENTENCE) == "my cat"


def test_sentences_name_what_each_reference_shows() -> None:
    prompt = append_sentences("a finch by a coupe", ["finch", "coupe"], REFERENCE_SENTENCE)
    assert prompt == "a finch by a coupe. Image 1 shows finch. Image 2 shows coupe."
    prompt = append_sentences("Draw a finch!", ["finch"], REFERENCE_SENTENCE, first=2)
    assert prompt == "Draw a finch! Image 2 shows finch."
    assert append_sentences("a finch", [], REFERENCE_SENTENCE) == "a finch"
    assert append_sentences("a finch", ["finch"], "") == "a finch"


@pytest.mark.parametrize("sentence", ["Image {place} shows it.", "Image {} shows it.", "Image {number"])
def test_a_sentence_that_cannot_be_filled_in_is_refused(sentence: str) -> None:
    with pytest.raises(BadInput, match=r"generator\.wording = 'Image .*wanted a sentence with {number}"):
        InContext("pocket/generator", wording=sentence)
