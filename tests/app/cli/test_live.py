"""The live view: small images on a terminal with colours, and untrusted text without effect."""

import io
import re
import sys
from typing import Literal

import pytest
from PIL import Image
from rich.console import Console

from pleinair.app.api import finish, submit
from pleinair.app.cli.live import Board, LiveView, activity_text, row_line
from pleinair.app.cli.terminal import half_blocks
from pleinair.app.runs.events import KINDS, Event, Payload, Progress, StepStarted
from pleinair.app.texts import printable
from pleinair.app.trace.trace import title
from pleinair.tools.types import Attempt, GenerateRequest, Hit, Picture, Reference, Row


def live_output(terminal: bool, no_color: bool = False, graph: str = "pleinair") -> str:
    """Run a request with a live view and return its output."""
    file = io.StringIO()
    run = submit("two [red]things[/] \x1b[2J", seed=7, graph=graph)
    colours: Literal["truecolor"] | None = "truecolor" if terminal else None
    console = Console(file=file, force_terminal=terminal, color_system=colours, no_color=no_color)
    with LiveView(run, console) as view:
        finish(run, view.event)
    return file.getvalue()


@pytest.mark.usefixtures("place")
def test_a_terminal_with_colours_shows_images() -> None:
    assert live_output(terminal=True).count("▀") > 100


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("graph", "words"),
    [("imagerag", "to be retrieved: second thing"), ("pleinair", "must be visible: first <b>thing</b>")],
)
def test_concepts_are_labelled_by_what_the_graph_does_with_them(graph: str, words: str) -> None:
    assert words in live_output(terminal=False, graph=graph)


@pytest.mark.usefixtures("place")
def test_a_preview_is_below_the_activity_until_the_next_step() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=40)
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 99, 199)).save(file, "PNG")
    view = LiveView(submit("two things"), console)
    view.event(event(StepStarted(), "draft"))
    assert view.on_preview is not None
    view.on_preview(file.getvalue())
    view.event(event(Progress(done=2, total=8), "generate"))
    console.print(view._status)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Generating 2/8" in output and "\x1b[38;2;9;99;199;48;2;9;99;199m▀" in output
    view.event(event(StepStarted(), "critique"))
    console.print(view._status)
    assert console.file.getvalue().count("▀") == output.count("▀")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("step", "call", "words"),
    [
        ("act", {"name": "retrieve", "about": "barn [b]owl"}, "Retrieving references: barn \\[b]owl"),
        ("act", {"name": "generate", "about": ""}, "Generating"),
        ("act", {"name": "critique", "about": "0"}, "Judging the image"),
        ("act", {"name": "finish", "about": "it will not do"}, "Ending"),
        ("act", {"name": "imagerag", "about": ""}, "imagerag"),
        ("begin", None, "Reading the request"),
        ("finish", None, "Ending"),
    ],
)
def test_activity_text_of_steps_and_calls(step: str, call: dict[str, str] | None, words: str) -> None:
    assert activity_text(event(StepStarted.model_validate({"call": call}), step)) == words


def test_a_first_image_is_a_draft_only_without_references() -> None:
    picture = Picture(sha256="0" * 64, mime="image/png", width=1, height=1)
    references = (Reference(concept="a", hit=Hit(id="1.png", score=1.0), picture=picture),)
    request = GenerateRequest(prompt="a", height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0)
    requests = (request, request.model_copy(update={"references": references}))
    titles = [
        title(Attempt(number=number, picture=picture, seconds=1, request=request))
        for number in (0, 1)
        for request in requests
    ]
    assert titles == ["Draft", "First image", "Attempt 1", "Attempt 1"]


@pytest.mark.usefixtures("place")
def test_without_images_there_are_no_previews() -> None:
    run = submit("two things")
    for console in (Console(file=io.StringIO()), Console(force_terminal=True, no_color=True)):
        assert LiveView(run, console).on_preview is None


def event(payload: Payload, step: str) -> Event:
    return Event(seq=0, at=0.0, kind=KINDS[type(payload)], step=step, data=payload)


@pytest.mark.usefixtures("place")
def test_a_terminal_without_colours_shows_no_images() -> None:
    assert "▀" not in live_output(terminal=True, no_color=True)


@pytest.mark.usefixtures("place")
def test_a_file_gets_plain_lines() -> None:
    output = live_output(terminal=False)
    assert "▀" not in output and "\x1b" not in output
    assert "second thing" in output and "accepted: every concept is present" in output
    assert "two [red]things[/] �[2J" in output


def test_each_half_block_has_two_pixels() -> None:
    picture = Image.new("RGB", (2, 2), (255, 0, 0))
    picture.putpixel((0, 1), (0, 0, 255))
    text = half_blocks(picture, width=2)
    assert text.plain == "▀▀\n"
    assert [str(span.style) for span in text.spans] == ["#ff0000 on #0000ff", "#ff0000 on #ff0000"]


def test_evidence_cannot_control_the_terminal() -> None:
    row = Row(concept="a [b]", status="missing", confidence=0.5, evidence="\x1b]0;owned\x07 [/dim]")
    assert "\x1b" not in row_line(row) and "\\[/dim]" in row_line(row)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain ü 二", "plain ü 二"), ("a\nb\tc", "a b c"), ("\x1b[31mred", "�[31mred"), ("a\u202eb", "a�b")],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.usefixtures("place")
def test_several_runs_have_a_line_of_activity_each_and_are_printed_in_blocks() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60)
    runs = [submit(f"{name} things", seed=seed) for name, seed in (("two", 1), ("three", 2))]
    with Board(console) as board:
        views = [LiveView(run, board=board) for run in runs]
        for view in views:
            view.__enter__()
            assert view.on_preview is None
        for view, done in zip(views, (3, 5), strict=True):
            view.event(event(Progress(text="a [b]note"), "draft"))
            view.event(event(Progress(done=done, total=8), "generate"))
        console.print(board._status)
        lines = [line.strip() for line in file.getvalue().splitlines()]
        assert lines[-2:] == ["⠋ seed 1 · Generating 3/8", "seed 2 · Generating 5/8"]
        views[0].__exit__()
        console.print(board._status)
        assert file.getvalue().splitlines()[-1].strip() == "⠋ seed 2 · Generating 5/8"
        views[1].__exit__()
        held = len(file.getvalue())
        assert "things" not in file.getvalue()
        for view in reversed(views):
            view.flush()
    lines = [re.sub(r"run \S+ · ", "", line) for line in file.getvalue()[held:].splitlines()]
    assert lines == [
        *("three things", "pleinair · seed 2", "a [b]note"),
        *("two things", "pleinair · seed 1", "a [b]note"),
    ]


def test_standard_output_is_free_while_the_activities_are_hidden() -> None:
    before = sys.stdout
    with Board(Console(file=io.StringIO(), force_terminal=True)) as board:
        assert sys.stdout is not before  # rich prints it above the spinner, to standard error
        with board.paused():
            assert sys.stdout is before
    assert sys.stdout is before
