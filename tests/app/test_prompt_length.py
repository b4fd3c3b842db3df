"""What text encoders cut off a prompt, told once before it is drawn and not by the libraries."""

import logging
from pathlib import Path

import pytest
from support import tiny_pipelines as tiny

from pleinair.app.api import estimate
from pleinair.tools.diffusion.prompt_length import cut_prompt
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import GenerateRequest

PROMPT = "a wren in the snow, and much more than this text encoder ever reads of it"
KINDS = {"sd15": ("StableDiffusionPipeline", tiny.sd15), "flux1": ("FluxPipeline", tiny.flux1)}


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextOnly:
    pipeline, make = KINDS[request.param]
    folder = tiny.save(make, tmp_path_factory.mktemp(request.param))
    return TextOnly(str(folder), pipeline=pipeline, height=32, width=32, num_inference_steps=1)


def test_the_part_that_is_not_read_is_known_before(engine: TextOnly) -> None:
    cut = cut_prompt(PROMPT, engine.settings)
    assert cut is not None and cut.tokens == 24
    assert PROMPT.endswith(cut.text) and len(PROMPT) - len(cut.text) in (22, 23)  # a byte a token, two marks
    assert cut_prompt("a wren", engine.settings) is None


def test_the_libraries_do_not_report_it(
    engine: TextOnly, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    request = GenerateRequest(
        prompt=PROMPT, height=32, width=32, num_inference_steps=1, guidance_scale=1.0, seed=1
    )
    levels = [logging.getLogger(name).level for name in ("diffusers", "transformers")]
    engine.generate(request, [], lambda done, total: None)
    output = capfd.readouterr()
    assert "truncated" not in output.err + caplog.text and "sequence length" not in output.err + caplog.text
    assert [logging.getLogger(name).level for name in ("diffusers", "transformers")] == levels


def test_it_is_a_note_of_the_request(place: Path, engine: TextOnly) -> None:
    overrides = {
        "generator.backend": "text_only",
        "generator.folder": engine.settings.folder,
        "generator.pipeline": engine.settings.pipeline,
        "generator.height": 32,
        "generator.width": 32,
    }
    (note,) = estimate(PROMPT, overrides=overrides).notes
    assert note.kind == "prompt_cut" and note.about in note.text and PROMPT.endswith(note.about)
    assert not estimate("a wren in the snow", overrides=overrides).notes
