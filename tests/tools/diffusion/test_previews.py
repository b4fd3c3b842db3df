"""Previews: small, few, similar to the final image, and without effect on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import loaded_pipeline, make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion import previews
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.previews import Previews, samples
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import Cancelled, GenerateRequest, Generator

# diffusers' Euler scheduler, SDXL's own, hands torch's numbers to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 5
CLASSES = [name for name in tiny.TEXT_ONLY if name not in ("FluxKontextPipeline", "ZImageOmniPipeline")]


class Recorder:
    """Callback that records steps and previews, and stops at a preview of some number."""

    def __init__(self, stop_at: int = 99) -> None:
        self.steps: list[int] = []
        self.previews: list[Image.Image] = []
        self._stop_at = stop_at

    def __call__(self, done: int, total: int) -> None:
        self.steps.append(done)

    def show(self, preview: Image.Image) -> None:
        self.previews.append(preview)
        if len(self.previews) == self._stop_at:
            raise Cancelled("enough")


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show a preview of every step, without a pause."""
    monkeypatch.setattr(previews, "PAUSE", 0.0)


def pocket() -> InContext:
    return InContext(
        "pocket/generator", height=64, width=64, max_sequence_length=20, text_encoder_out_layers=(0, 2, 3)
    )


def request(**fields: Any) -> GenerateRequest:
    return make_request(prompt="a red coupe", **{"num_inference_steps": STEPS, **fields})


def record(generator: Generator, **fields: Any) -> tuple[Recorder, np.ndarray]:
    recorder = Recorder()
    return recorder, np.asarray(generator.generate(request(**fields), (), recorder))


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("pipeline", CLASSES)
def test_every_class_has_previews_and_generates_the_same_image(pipeline: str, tmp_path: Path) -> None:
    make, options = tiny.TEXT_ONLY[pipeline]
    folder = str(tiny.save(make, tmp_path))
    engine = TextOnly(folder, pipeline=pipeline, height=32, width=32, options=options)
    expected = np.asarray(engine.generate(request(), (), no_callback))
    before = torch.random.get_rng_state()
    recorder, pixels = record(engine)
    assert np.array_equal(expected, pixels)
    assert torch.equal(before, torch.random.get_rng_state())
    last = recorder.steps[-1]
    assert recorder.steps == list(range(last + 1))
    assert len(recorder.previews) == last - 2  # the first step is noise, the last one the image
    assert {(image.mode, max(image.size) <= previews.LONGEST) for image in recorder.previews} == {
        ("RGB", True)
    }


@pytest.mark.usefixtures("every_step")
def test_the_last_preview_is_similar_to_the_image() -> None:
    recorder, pixels = record(pocket(), height=64, width=64, num_inference_steps=8, guidance_scale=3.0)
    size = recorder.previews[-1].size
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)).ravel()
    similarity = [np.corrcoef(np.asarray(image).ravel(), small)[0, 1] for image in recorder.previews]
    assert similarity[-1] > 0.95
    assert similarity[-1] > similarity[0]


@pytest.mark.usefixtures("every_step")
def test_a_preview_may_stop_the_image_and_the_next_one_is_complete() -> None:
    engine, recorder = pocket(), Recorder(stop_at=2)
    with pytest.raises(Cancelled, match="enough"):
        engine.generate(request(), (), recorder)
    assert recorder.steps == [0, 1, 2, 3]
    assert len(record(engine)[0].previews) == STEPS - 2


def test_there_are_at_most_four_a_second() -> None:
    recorder, now, engine = Recorder(), [0.0], pocket()
    engine.generate(request(), (), no_callback)
    pipeline = loaded_pipeline(engine)
    show = Previews(recorder, (32, 32), clock=lambda: now[0])
    for tick in range(101):  # ten seconds
        now[0] = tick / 10
        show(pipeline, torch.zeros(1, 16, 64))
    assert len(recorder.previews) == 34  # at every third tick: the first that is a quarter of a second later


@pytest.mark.usefixtures("every_step")
def test_a_large_image_has_a_small_preview() -> None:
    engine = pocket()
    engine.generate(request(), (), no_callback)
    latents = torch.zeros(1, 64 * 32, 64)
    preview = previews.make_preview(loaded_pipeline(engine), latents, latents, (512, 256))
    assert preview is not None and preview.size == (96, 48)


@pytest.mark.usefixtures("every_step")
def test_an_image_without_previews_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = pocket()
    expected = np.asarray(engine.generate(request(), (), no_callback))
    monkeypatch.setattr(loaded_pipeline(engine).vae, "encode", None)
    recorder, pixels = record(engine)
    assert not recorder.previews
    assert recorder.steps == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(expected, pixels)


def test_the_map_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fits, real = list[Any](), previews.fit_colour_map

    def fit(pipeline: Any) -> Any:
        fits.append(pipeline)
        return real(pipeline)

    monkeypatch.setattr(previews, "PAUSE", 0.0)
    monkeypatch.setattr(previews, "fit_colour_map", fit)
    engine = pocket()
    for _ in range(2):
        assert len(record(engine)[0].previews) == STEPS - 2
    assert len(fits) == 1


def test_the_samples_are_deterministic() -> None:
    assert torch.equal(samples(16), samples(16))
    assert samples(16).shape == (8 + 4 * 4, 3, 16, 16)
