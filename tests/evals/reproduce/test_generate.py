"""Tests of the seconds and the money that an image costs which is served again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pleinair.agent.context import Context
from pleinair.app.engines import build
from pleinair.app.paths import places
from pleinair.app.settings import Settings, load
from pleinair.evals.papers.bench import request_key
from pleinair.evals.reproduce.generate import Clock, Studio, TimedGenerator, UsedUp, work_of
from pleinair.evals.reproduce.plan import Arm, Line, Subject, Variant
from pleinair.evals.reproduce.records import Records
from pleinair.tools.pocket.catalogue.library import write_library
from pleinair.tools.storage.artifacts import ArtifactStore, charged, spent_on
from pleinair.tools.types import Capabilities, GenerateRequest, Generator, Usage


class Grey:
    """Generator of a grey image."""

    capabilities = Capabilities(
        id="grey", slots=0, height=64, width=64, num_inference_steps=1, guidance_scale=1.0
    )

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        time.sleep(0.005)  # a measurable time
        return charged(Image.new("RGB", (8, 8), "grey"), Usage(usd=0.04))


def generate(folder: Path, request: GenerateRequest) -> Clock:
    """Generate by new engines over a folder, as each command does; return their clock."""
    clock = Clock(Records(folder / "drawn.jsonl"))
    TimedGenerator(Grey(), ArtifactStore(folder / "images"), clock).generate(request, [], lambda *_: None)
    return clock


def test_an_image_that_is_served_again_costs_the_seconds_that_it_took(tmp_path: Path) -> None:
    request = GenerateRequest(
        prompt="a finch", seed=1, height=64, width=64, num_inference_steps=1, guidance_scale=1.0
    )
    first = generate(tmp_path, request)
    assert (first.made, first.saved) == (1, 0.0)
    first.drawn.add(request_key("grey", request), seconds=2.5)
    second = generate(tmp_path, request)
    assert (second.made, second.saved) == (0, 2.5)
    assert generate(tmp_path, request.model_copy(update={"seed": 2})).saved == 0.0


def test_an_image_that_two_entries_share_is_charged_in_both_and_paid_once(tmp_path: Path) -> None:
    request = GenerateRequest(
        prompt="a finch", seed=1, height=64, width=64, num_inference_steps=1, guidance_scale=1.0
    )
    for number in range(2):
        studio = Studio(tmp_path)
        generator = TimedGenerator(Grey(), studio.store, studio.clock)
        image = generator.generate(request, [], lambda *_: None)
        assert spent_on(image).usd == 0.04
        if not number:  # killed before its entry was written
            assert Studio(tmp_path).spent == 0.04
        usage = Usage(usd=0.04 + 0.01).model_dump()  # with the MLLM's part
        studio.records.add(str(number), usage=usage, images_usd=studio.clock.usd)
    assert Studio(tmp_path).spent == pytest.approx(0.04 + 2 * 0.01)


class Priced:
    """The pocket world's generator at a price."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.capabilities = generator.capabilities.model_copy(update={"charged": True})

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        return charged(self._generator.generate(request, images, on_step), Usage(usd=0.01))


class PricedStudio(Studio):
    """Studio whose images cost a cent."""

    def _context(self, settings: Settings) -> Context:
        context = build(settings, places(settings.paths.home), self.store)
        generator = TimedGenerator(Priced(context.generator), self.store, self.clock)
        return replace(context, generator=generator)


def test_a_run_that_the_money_of_the_command_cuts_off_is_no_result(tmp_path: Path) -> None:
    write_library(tmp_path / "library", size=12, tiers=("rare",))
    changes = {"paths.home": str(tmp_path / "home"), "generator.num_inference_steps": 1}
    settings = load("pocket", changes | {"library.folder": [str(tmp_path / "library")]})
    arm, line = Arm("", "loop"), Line("loop", Variant("loop", "pleinair"))
    subject = Subject("a photo of a hoopoe on a beach", "hoopoe", 1, ())
    work = work_of(arm, line, settings, {}, (), "", (subject,))
    first = PricedStudio(tmp_path / "out", max_usd=0.015)
    with pytest.raises(UsedUp, match="is used up"):
        first.run(work, 0, 1)
    assert first.left(work) == [subject]
    assert first.spent == pytest.approx(0.02)
    second = PricedStudio(tmp_path / "out", max_usd=1)
    assert second.spent == pytest.approx(0.02)
    second.run(work, 0, 1)
    ((_, entry),) = second.entries(work)
    images = entry["usage"]["images"]
    assert images > 2
    assert entry["usage"]["usd"] == pytest.approx(0.01 * images)
    assert second.spent == pytest.approx(0.01 * images)  # two of them were paid for before
