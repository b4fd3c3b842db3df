"""Previews: small, few, like the picture that comes of them, and never felt by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion import previews
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.previews import Previews, samples
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import Cancelled, GenerateRequest, Generator

# diffusers' Euler scheduler, SDXL's own, hands torch's numbers to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 5
TEXT = {"max_sequence_length": 24}
FLUX2 = {**TEXT, "text_encoder_out_layers": (0, 1)}
CLASSES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "StableDiffusionPipeline": (tiny.sd15, {}),
    "StableDiffusionXLPipeline": (tiny.sdxl, {}),
    "StableDiffusion3Pipeline": (tiny.sd3, TEXT),
    "FluxPipeline": (tiny.flux1, TEXT),
    "Flux2KleinPipeline": (tiny.klein, FLUX2),
    "Flux2KleinKVPipeline": (tiny.klein_kv, FLUX2),
    "Flux2Pipeline": (tiny.flux2, FLUX2),
    "QwenImagePipeline": (tiny.qwen_edit, {}),
    "OmniGenPipeline": (tiny.omnigen, {}),
    "ZImagePipeline": (tiny.z_image, TEXT),
}


class Watcher:
    """Note what is told and shown; stop at the second preview when asked to."""

    def __init__(self, patience: int = 99) -> None:
        self.steps: list[int] = []
        self.shown: list[Image.Image] = []
        self._patience = patience

    def __call__(self, done: int, total: int) -> None:
        self.steps.append(done)

    def show(self, preview: Image.Image) -> None:
        self.shown.append(preview)
        if len(self.shown) == self._patience:
            raise Cancelled("seen enough")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step be shown, however fast they come."""
    monkeypatch.setattr(previews, "PAUSE", 0.0)


def pocket() -> InContext:
    return InContext(
        "pocket/generator", height=64, width=64, max_sequence_length=20, text_encoder_out_layers=(0, 2, 3)
    )


def request(**fields: Any) -> GenerateRequest:
    return make_request(prompt="a red coupe", **{"num_inference_steps": STEPS, **fields})


def watch(generator: Generator, **fields: Any) -> tuple[Watcher, np.ndarray]:
    watcher = Watcher()
    return watcher, np.asarray(generator.generate(request(**fields), (), watcher))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("pipeline", CLASSES)
def test_every_class_is_shown_and_draws_the_same(pipeline: str, tmp_path: Path) -> None:
    make, settings = CLASSES[pipeline]
    folder = str(tiny.save(make, tmp_path))
    engine = TextOnly(folder, pipeline=pipeline, height=32, width=32, options=settings)
    unseen = np.asarray(engine.generate(request(), (), no_callback))
    before = torch.random.get_rng_state()
    watcher, seen = watch(engine)
    assert np.array_equal(unseen, seen)
    assert torch.equal(before, torch.random.get_rng_state())
    last = watcher.steps[-1]
    assert watcher.steps == list(range(last + 1))
    assert len(watcher.shown) == last - 2  # the first step is noise, the last one the picture
    assert {(one.mode, max(one.size) <= previews.LONGEST) for one in watcher.shown} == {("RGB", True)}


@pytest.mark.usefixtures("eager")
def test_the_last_preview_is_like_the_picture() -> None:
    watcher, picture = watch(pocket(), height=64, width=64, num_inference_steps=8, guidance_scale=3.0)
    small = np.asarray(Image.fromarray(picture).resize(watcher.shown[-1].size, Image.Resampling.BOX))
    likeness = [np.corrcoef(np.asarray(one).ravel(), small.ravel())[0, 1] for one in watcher.shown]
    assert likeness[-1] > 0.95
    assert likeness[-1] > likeness[0]


@pytest.mark.usefixtures("eager")
def test_a_viewer_may_stop_the_picture_and_the_next_one_comes() -> None:
    engine, watcher = pocket(), Watcher(patience=2)
    with pytest.raises(Cancelled, match="seen enough"):
        engine.generate(request(), (), watcher)
    assert watcher.steps == [0, 1, 2, 3]
    assert len(watch(engine)[0].shown) == STEPS - 2


def test_at_most_four_a_second_are_shown() -> None:
    watcher, now = Watcher(), [0.0]
    engine = pocket()
    engine.generate(request(), (), no_callback)
    pipeline = engine._forms[engine.pipeline]
    show = Previews(watcher, (32, 32), clock=lambda: now[0])
    for tick in range(101):  # ten seconds
        now[0] = tick / 10
        show(pipeline, torch.zeros(1, 16, 64))
    assert len(watcher.shown) == 34  # at every third tick: the first that is a quarter of a second later


@pytest.mark.usefixtures("eager")
def test_a_large_picture_has_a_small_preview() -> None:
    engine = pocket()
    engine.generate(request(), (), no_callback)
    latents = torch.zeros(1, 64 * 32, 64)
    shown = previews.preview(engine._forms[engine.pipeline], latents, latents, (512, 256))
    assert shown is not None and shown.size == (96, 48)


@pytest.mark.usefixtures("eager")
def test_what_cannot_be_shown_is_drawn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = pocket()
    unseen = np.asarray(engine.generate(request(), (), no_callback))
    vae = engine._forms[engine.pipeline].vae
    monkeypatch.setattr(vae, "encode", None)
    watcher, seen = watch(engine)
    assert not watcher.shown
    assert watcher.steps == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(unseen, seen)


def test_the_map_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fits, real = list[Any](), previews.fit_colours

    def fit(pipeline: Any) -> Any:
        fits.append(pipeline)
        return real(pipeline)

    monkeypatch.setattr(previews, "PAUSE", 0.0)
    monkeypatch.setattr(previews, "fit_colours", fit)
    engine = pocket()
    for _ in range(2):
        assert len(watch(engine)[0].shown) == STEPS - 2
    assert len(fits) == 1


def test_the_samples_are_always_the_same() -> None:
    assert torch.equal(samples(16), samples(16))
    assert samples(16).shape == (8 + 4 * 4, 3, 16, 16)
