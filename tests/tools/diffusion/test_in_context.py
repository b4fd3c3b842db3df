"""Loading and calling every in-context class, on random weights that the test saves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import (
    REFERENCES,
    draw,
    make_reference,
    make_request,
    noise_from_another_thread,
    stop_after,
)

from pleinair.tools.diffusion.families import IN_CONTEXT
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.references import append_sentences
from pleinair.tools.types import BadInput, Cancelled

TEXT = {"max_sequence_length": 24}
FLUX2 = {**TEXT, "text_encoder_out_layers": (0, 1)}


@dataclass(frozen=True)
class Case:
    """Pipeline class with its small model, and the settings that it needs at that size."""

    pipeline: str
    make: Callable[[], Any]
    settings: dict[str, Any]
    slots: int


CASES = {
    case.pipeline: case
    for case in (
        Case("Flux2KleinPipeline", tiny.klein, FLUX2, 4),
        Case("Flux2KleinKVPipeline", tiny.klein_kv, FLUX2, 4),
        Case("Flux2Pipeline", tiny.flux2, FLUX2, 6),
        Case("FluxKontextPipeline", tiny.kontext, {**TEXT, "options": {"_auto_resize": False}}, 1),
        Case("QwenImageEditPlusPipeline", tiny.qwen_edit, {}, 3),
        Case("OmniGenPipeline", tiny.omnigen, {"options": {"img_guidance_scale": 1.6}}, 3),
        Case("ZImageOmniPipeline", tiny.z_image_omni, TEXT, 4),
    )
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def engine(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InContext]:
    """Build an engine; Qwen's references, always scaled to a megapixel there, stay small here."""
    folder = tiny.save(case.make, tmp_path_factory.mktemp(case.pipeline))
    with pytest.MonkeyPatch.context() as patch:
        module = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus"
        patch.setattr(f"{module}.VAE_IMAGE_SIZE", 32 * 32)
        patch.setattr(f"{module}.CONDITION_IMAGE_SIZE", 64 * 64)
        yield InContext(
            str(folder), pipeline=case.pipeline, height=32, width=32, reference_size=32, **case.settings
        )


def test_generates_with_any_number_of_references(engine: InContext, case: Case) -> None:
    assert engine.capabilities.slots == case.slots
    images = [draw(engine, images=REFERENCES[:count]) for count in sorted({0, 1, case.slots})]
    assert all(image.shape == (32, 32, 3) for image in images)
    assert len({image.tobytes() for image in images}) == len(images)


def test_the_options_of_a_request_are_those_that_have_an_effect(engine: InContext) -> None:
    sizes_and_steps = ("width", "height", "num_inference_steps")
    guidance = ("guidance_scale",) if engine.family.guidance else ()
    assert engine.capabilities.accepts == (*sizes_and_steps, *guidance)


def test_a_negative_prompt_changes_the_image_or_is_refused(engine: InContext) -> None:
    if engine.capabilities.negative_prompt:
        plain = draw(engine, images=REFERENCES[:1])
        assert not np.array_equal(plain, draw(engine, images=REFERENCES[:1], negative_prompt="a coupe"))
    else:
        with pytest.raises(BadInput, match="no negative prompt"):
            draw(engine, images=REFERENCES[:1], negative_prompt="a coupe")


def test_references_are_numbered_as_the_class_itself_numbers_them() -> None:
    """Qwen's class writes its numbering into the prompt template; ours must be the same."""
    import inspect

    from diffusers import QwenImageEditPlusPipeline

    source = inspect.getsource(QwenImageEditPlusPipeline._get_qwen_prompt_embeds)
    assert '"Picture {}: ' in source
    wording = IN_CONTEXT["QwenImageEditPlusPipeline"].wording
    prompt = append_sentences("A park.", ["finch", "coupe"], wording)
    assert prompt == "A park. Picture 1 shows finch. Picture 2 shows coupe."


def test_a_prompt_that_says_what_the_references_show_gets_no_sentences(engine: InContext) -> None:
    references = (make_reference("fig"),)
    plain = draw(engine, images=REFERENCES[:1], references=references)
    announced = draw(engine, images=REFERENCES[:1], references=references, announced=True)
    assert np.array_equal(plain, announced) == (not engine.family.wording)


def test_the_image_depends_on_seed_prompt_and_references(engine: InContext) -> None:
    first = draw(engine, images=REFERENCES[:1])
    assert np.array_equal(first, draw(engine, images=REFERENCES[:1]))
    assert not np.array_equal(first, draw(engine, images=REFERENCES[1:2]))
    assert not np.array_equal(first, draw(engine, images=REFERENCES[:1], seed=1))
    assert not np.array_equal(first, draw(engine, images=REFERENCES[:1], prompt="a coupe"))


def test_torchs_global_noise_changes_nothing(engine: InContext) -> None:
    first = draw(engine, images=REFERENCES[:1])
    with noise_from_another_thread():
        assert np.array_equal(first, draw(engine, images=REFERENCES[:1]))


def test_cancelling_does_not_change_the_next_image(engine: InContext) -> None:
    before = draw(engine, images=REFERENCES[:1])
    calls: list[tuple[int, int]] = []
    with pytest.raises(Cancelled):
        engine.generate(make_request(), REFERENCES[:1], stop_after(1, calls))
    assert calls == [(0, 2), (1, 2)]
    assert np.array_equal(before, draw(engine, images=REFERENCES[:1]))


def test_too_many_references_are_refused_before_anything_runs(engine: InContext, case: Case) -> None:
    calls: list[tuple[int, int]] = []
    with pytest.raises(BadInput, match=f"takes {case.slots} references, got {case.slots + 1}"):
        engine.generate(make_request(), REFERENCES[: case.slots + 1], stop_after(1, calls))
    assert not calls


def omnigen(folder: Path, **settings: Any) -> InContext:
    return InContext(
        str(tiny.save(tiny.omnigen, folder)), pipeline="OmniGenPipeline", height=32, width=32, **settings
    )


def test_a_size_that_the_class_would_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="multiples of 16 pixels, got 24 × 32"):
        draw(omnigen(tmp_path), width=24)


def test_a_reference_narrower_than_a_token_is_used(tmp_path: Path) -> None:
    engine = omnigen(tmp_path, reference_size=128)
    draw(engine, images=[Image.new("RGB", (512, 4))])
    draw(engine, images=[Image.new("RGB", (1, 1))])
