"""Whole runs with previews: seen while they are drawn, and found nowhere afterwards."""

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
def test_a_watched_run_shows_previews_and_keeps_none(place: Path, apart: bool) -> None:
    seen, events = list[bytes](), list[Event]()
    draw("two things", overrides={"worker.process": apart}, on_event=events.append, on_preview=seen.append)
    wanted = [quick.colour(f"preview {step}") for step in range(STEPS)]
    drawn = (place / "effects.log").read_text("utf-8").count("picture ")
    assert drawn > 1 and colours(seen) == wanted * drawn
    assert not [event for event in events if "preview" in event.model_dump_json()]
    texts = [base64.b64encode(png) for png in seen]
    files = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [
        1 for file in files for png, text in zip(seen, texts, strict=True) if png in file or text in file
    ]


@pytest.mark.parametrize("previews", [True, False])
def test_previews_are_made_for_a_watcher_who_may_not_want_them(
    place: Path, previews: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen, real = list[bool](), list[bytes](), quick.colour

    def colour(text: str) -> tuple[int, int, int]:
        made.append("preview" in text)
        return real(text)

    monkeypatch.setattr(quick, "colour", colour)
    draw("two things", overrides={"output.previews": previews}, on_preview=seen.append)
    assert any(made) is bool(seen) is previews
    made.clear()
    draw("two things")
    assert not any(made)
