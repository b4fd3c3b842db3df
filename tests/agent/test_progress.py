"""What is told of a picture on the way: steps to all, previews to those who asked, and none to the state."""

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
from pleinair.agent.progress import MOST, small_png
from pleinair.graphs.direct import graph
from pleinair.tools.callbacks import PreviewCallback, StopCheck, stop_check
from pleinair.tools.types import Cancelled, GenerateRequest

STEPS = 4


class Painter(SquareGenerator):
    """Show what a viewer may see before each step."""

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        if isinstance(on_step, PreviewCallback):
            for number in range(request.num_inference_steps):
                on_step.show(Image.new("RGB", (8, 6), (number, 0, 0)))
        return super().generate(request, images, on_step)


class Loader(SquareGenerator):
    """Load for five seconds, then draw for one."""

    now = 100.0

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.now += 5
        on_step(0, request.num_inference_steps)
        self.now += 1
        return super().generate(request, images, on_step)


class Slow(Loader):
    """Load for a minute, and ask meanwhile whether to go on."""

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.now += 60
        stop_check(on_step)()
        return super().generate(request, images, on_step)


class Watcher:
    """Be a viewer that a caller gives."""

    def __init__(self) -> None:
        self.steps, self.shown = list[int](), list[Image.Image]()

    def __call__(self, done: int, total: int) -> None:
        self.steps.append(done)

    def show(self, preview: Image.Image) -> None:
        self.shown.append(preview)


def painter(folder: Path, **knobs: Any) -> Context:
    return make_context(folder, lambda *_: decomposition("p"), generator=Painter(steps=STEPS), **knobs)


def told(context: Context) -> tuple[list[dict[str, Any]], list[Any]]:
    """Stream a drawing; give the custom events, and all that changed the state."""
    given: Any = {"prompt": "p"}
    events: list[dict[str, Any]] = []
    states: list[Any] = []
    for kind, part in graph.stream(given, context=context, stream_mode=["custom", "values"]):
        if kind == "custom":
            assert isinstance(part, dict)
            events.append(part)
        else:
            states.append(part)
    return events, states


def test_previews_come_where_the_context_asks_for_them(tmp_path: Path) -> None:
    events, states = told(painter(tmp_path, previews=True))
    shown = [event for event in events if "preview" in event]
    assert len(shown) == STEPS
    for number, event in enumerate(shown):
        with Image.open(io.BytesIO(base64.b64decode(event["preview"]))) as picture:
            assert (picture.format, picture.size) == ("PNG", (8, 6))
            assert picture.getpixel((0, 0)) == (number, 0, 0)
        assert event["preview"] not in json.dumps(states)
    assert [event["done"] for event in events if "done" in event] == [1, 2, 3, 4]


def test_nobody_who_did_not_ask_is_shown_any(tmp_path: Path) -> None:
    events, _ = told(painter(tmp_path))
    assert [sorted(event) for event in events] == [["done", "step", "total"]] * STEPS


def test_a_caller_who_is_a_viewer_is_shown_them(tmp_path: Path) -> None:
    watcher = Watcher()
    events, _ = told(painter(tmp_path, on_step=watcher))
    assert watcher.steps == [1, 2, 3, 4]
    assert [preview.size for preview in watcher.shown] == [(8, 6)] * STEPS
    assert not [event for event in events if "preview" in event]


def test_a_picture_took_as_long_as_it_was_drawn_and_the_run_paid_for_loading_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(steps=STEPS)
    for module in ("nodes", "progress"):
        monkeypatch.setattr(f"pleinair.agent.{module}.perf_counter", lambda: loader.now)
    context = make_context(tmp_path, lambda *_: decomposition("p"), generator=loader)
    done = graph.invoke({"prompt": "p"}, context=context)  # type: ignore[call-overload]
    assert (done["attempts"][0]["seconds"], done["usage"][0]["seconds"]) == (1, 6)


def stop() -> None:
    raise Cancelled("enough")


def test_a_caller_who_can_be_asked_stops_a_picture_before_its_first_step(tmp_path: Path) -> None:
    context = make_context(tmp_path, lambda *_: "", generator=Slow(steps=STEPS), on_step=StopCheck(stop))
    events: list[Any] = []
    with pytest.raises(Cancelled, match="enough"):
        events.extend(graph.stream({"prompt": "p"}, context=context, stream_mode="custom"))  # type: ignore[call-overload]
    assert events == []  # a question is no step


@pytest.mark.parametrize("seconds, drawn", [(59, 0), (99, 1)])
def test_the_end_of_the_time_is_seen_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, drawn: int
) -> None:
    slow = Slow(steps=STEPS)
    for module in ("nodes", "progress"):
        monkeypatch.setattr(f"pleinair.agent.{module}.perf_counter", lambda: slow.now)
    given: Any = {"prompt": "p", "budget": {"seconds": seconds}}
    done = graph.invoke(given, context=make_context(tmp_path, lambda *_: "", generator=slow))
    assert len(done["attempts"]) == drawn
    assert done["usage"][0]["seconds"] == 60 + 6 * drawn


@pytest.mark.parametrize("size", [(96, 96), (96, 40), (30, 20)])
def test_a_preview_is_small_whatever_it_shows(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    png = small_png(Image.fromarray(noise))
    assert len(png) <= MOST and len(base64.b64encode(png)) <= 10 * 1024
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.05)
