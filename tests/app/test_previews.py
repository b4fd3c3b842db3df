"""Whole runs with previews: sent to the callback, and stored nowhere."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import quick_engines as quick

from pleinair.app.api import draw
from pleinair.app.runs.events import Event

STEPS = 3  # of the quick generator


def colours(pngs: list[bytes]) -> list[Any]:
    return [Image.open(io.BytesIO(png)).getpixel((0, 0)) for png in pngs]


@pytest.mark.parametrize("apart", [False, True])
def test_a_run_sends_previews_and_stores_none(place: Path, apart: bool) -> None:
    pngs, events = list[bytes](), list[Event]()
    draw("two things", overrides={"worker.process": apart}, on_event=events.append, on_preview=pngs.append)
    expected = [quick.colour(f"preview {step}") for step in range(STEPS)]
    images = (place / "effects.log").read_text("utf-8").count("picture ")
    assert images > 1 and colours(pngs) == expected * images
    assert not [event for event in events if "preview" in event.model_dump_json()]
    texts = [base64.b64encode(png) for png in pngs]
    files = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [
        1 for file in files for png, text in zip(pngs, texts, strict=True) if png in file or text in file
    ]


@pytest.mark.parametrize("previews", [True, False])
def test_previews_are_made_only_for_a_callback_and_if_switched_on(
    place: Path, previews: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, pngs, colour = list[bool](), list[bytes](), quick.colour

    def record(text: str) -> tuple[int, int, int]:
        calls.append("preview" in text)
        return colour(text)

    monkeypatch.setattr(quick, "colour", record)
    draw("two things", overrides={"output.previews": previews}, on_preview=pngs.append)
    assert any(calls) is bool(pngs) is previews
    calls.clear()
    draw("two things")
    assert not any(calls)
