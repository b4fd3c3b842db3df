"""Progress of an image: steps on the stream, previews only on request, and none in the state."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.fake_engines import SquareGenerator, decomposition, make_context

from pleinair.agent.context import Context
from pleinair.agent.progress import MAX_BYTES, small_png
from pleinair.graphs.direct import graph
from pleinair.tools.callbacks import PreviewCallback, StopCheck, stop_check
from pleinair.tools.types import Cancelled, GenerateRequest

STEPS = 4


class PreviewingGenerator(SquareGenerator):
    """Generator that shows a preview before each step."""

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        if isinstance(on_step, PreviewCallback):
            for number in range(request.num_inference_steps):
                on_step.show(Image.new("RGB", (8, 6), (number, 0, 0)))
        return super().generate(request, images, on_step)


class Loader(SquareGenerator):
    """Generator that loads for five seconds, then generates for one."""

    now = 100.0

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.now += 5
        on_step(0, request.num_inference_steps)
        self.now += 1
        return super().generate(request, images, on_step)


class Slow(Loader):
    """Generator that loads for another minute, and checks then whether to stop."""

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.now += 60
        stop_check(on_step)()
        return super().generate(request, images, on_step)


class PreviewRecorder:
    """Step callback of a caller that takes previews."""

    def __init__(self) -> None:
        self.steps, self.shown = list[int](), list[Image.Image]()

    def __call__(self, done: int, total: int) -> None:
        self.steps.append(done)

    def show(self, preview: Image.Image) -> None:
        self.shown.append(preview)


def previewing_context(folder: Path, **options: Any) -> Context:
    generator = PreviewingGenerator(steps=STEPS)
    return make_context(folder, lambda *_: decomposition("p"), generator=generator, **options)


def stream(context: Context) -> tuple[list[dict[str, Any]], list[Any]]:
    """Stream a run; return the custom events and the states."""
    values: Any = {"prompt": "p"}
    events: list[dict[str, Any]] = []
    states: list[Any] = []
    for kind, part in graph.stream(values, context=context, stream_mode=["custom", "values"]):
        if kind == "custom":
            assert isinstance(part, dict)
            events.append(part)
        else:
            states.append(part)
    return events, states


def test_previews_are_streamed_where_the_context_asks_for_them(tmp_path: Path) -> None:
    events, states = stream(previewing_context(tmp_path, previews=True))
    shown = [event for event in events if "preview" in event]
    assert len(shown) == STEPS
    for number, event in enumerate(shown):
        with Image.open(io.BytesIO(base64.b64decode(event["preview"]))) as picture:
            assert (picture.format, picture.size) == ("PNG", (8, 6))
            assert picture.getpixel((0, 0)) == (number, 0, 0)
        assert event["preview"] not in json.dumps(states)
    assert [event["done"] for event in events if "done" in event] == [1, 2, 3, 4]


def test_without_a_request_there_are_no_previews(tmp_path: Path) -> None:
    events, _ = stream(previewing_context(tmp_path))
    assert [sorted(event) for event in events] == [["done", "step", "total"]] * STEPS


def test_a_callback_that_takes_previews_is_passed_them(tmp_path: Path) -> None:
    recorder = PreviewRecorder()
    events, _ = stream(previewing_context(tmp_path, on_step=recorder))
    assert recorder.steps == [1, 2, 3, 4]
    assert [preview.size for preview in recorder.shown] == [(8, 6)] * STEPS
    assert not [event for event in events if "preview" in event]


def test_loading_counts_in_the_usage_of_the_run_and_not_in_the_seconds_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(steps=STEPS)
    for module in ("nodes", "progress"):
        monkeypatch.setattr(f"pleinair.agent.{module}.perf_counter", lambda: loader.now)
    context = make_context(tmp_path, lambda *_: decomposition("p"), generator=loader)
    done = graph.invoke({"prompt": "p"}, context=context)
    assert (done["attempts"][0]["seconds"], done["usage"][0]["seconds"]) == (1, 6)


def stop() -> None:
    raise Cancelled("enough")


def test_a_callback_with_a_check_stops_an_image_before_its_first_step(tmp_path: Path) -> None:
    context = make_context(tmp_path, lambda *_: "", generator=Slow(steps=STEPS), on_step=StopCheck(stop))
    events: list[Any] = []
    with pytest.raises(Cancelled, match="enough"):
        events.extend(graph.stream({"prompt": "p"}, context=context, stream_mode="custom"))
    assert events == []  # a check is no step


@pytest.mark.parametrize("seconds, images", [(59, 0), (99, 1)])
def test_the_deadline_is_checked_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, images: int
) -> None:
    slow = Slow(steps=STEPS)
    for module in ("nodes", "progress"):
        monkeypatch.setattr(f"pleinair.agent.{module}.perf_counter", lambda: slow.now)
    values: Any = {"prompt": "p", "budget": {"seconds": seconds}}
    done = graph.invoke(values, context=make_context(tmp_path, lambda *_: "", generator=slow))
    assert len(done["attempts"]) == images
    assert done["usage"][0]["seconds"] == 60 + 6 * images


@pytest.mark.parametrize("size", [(96, 96), (96, 40), (30, 20)])
def test_a_preview_is_small_whatever_it_shows(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    png = small_png(Image.fromarray(noise))
    assert len(png) <= MAX_BYTES and len(base64.b64encode(png)) <= 10 * 1024
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.05)
