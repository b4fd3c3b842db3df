"""The chat in the terminal: requests that continue each other, and commands."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.chats import Chat, chat_output
from typer.testing import CliRunner

from pleinair.app.api import home, resume, run_table
from pleinair.app.chat.edits import read_scene_edit
from pleinair.app.chat.threads import Threads
from pleinair.app.cli.main import app
from pleinair.app.runs.events import StepStarted, payloads, read
from pleinair.app.runs.history import state_of
from pleinair.app.runs.results import result_of
from pleinair.app.runs.row import Run
from pleinair.app.trace.replay import redraw
from pleinair.tools.types import BadInput

PROMPT = "a barn owl and a blue jay"
JAY = "blue jay"


@pytest.fixture
def chat_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    return place


def runs() -> list[Run]:
    return run_table().newest(20)[::-1]


def references(run: Run) -> list[str]:
    best = result_of(run).outcome.best
    assert best is not None
    return [reference.hit.id for reference in best.request.references]


def prompts() -> list[str]:
    bests = [result_of(run).outcome.best for run in runs()]
    return [best.request.prompt for best in bests if best]


def numbered(output: str, concept: str) -> dict[str, int]:
    """Return the number of each id in a list of references."""
    lines = [line.split() for line in output.splitlines() if f"{concept}:" in line]
    return {words[3]: int(words[0]) for words in lines}


@pytest.mark.usefixtures("chat_place")
def test_a_request_has_a_live_view_and_is_a_run() -> None:
    output = chat_output(Chat(), PROMPT)
    for words in ("must be visible: barn owl, blue jay", "missing 90%", "Add reference", "accepted:"):
        assert words in output
    (run,) = runs()
    assert run.status == "accepted"
    assert str(result_of(run).picture) in output
    assert b"base64" not in home().events(run.id).read_bytes()


@pytest.mark.usefixtures("chat_place")
def test_a_request_continues_the_one_before() -> None:
    chat_output(Chat(), PROMPT, "now make it night")
    first, second = runs()
    assert prompts() == [PROMPT, f"{PROMPT} at night"]
    assert references(first) == references(second) != []
    state = state_of(second.id, home())
    assert state is not None and len(state.turns) == 1 and len(state.attempts) == 1


@pytest.mark.usefixtures("chat_place")
def test_a_first_image_with_references_is_not_called_a_draft() -> None:
    output = chat_output(Chat(), PROMPT, "now make it night")
    first, second = output.split("now make it night")
    assert "draft" in first and "attempt 1" in first
    assert "first image" in second and "draft" not in second
    shown = CliRunner().invoke(app, ["trace", "show", "last"]).stdout
    assert "First image ★ best" in shown and "Draft" not in shown


@pytest.mark.usefixtures("chat_place")
def test_calls_are_in_the_events_and_in_the_trace() -> None:
    chat_output(Chat(), PROMPT)
    started = payloads(read(home().events(runs()[0].id)), StepStarted)
    calls = [step.call.model_dump() for step in started if step.call]
    assert calls[0] == {"name": "decompose", "about": PROMPT}
    assert {"name": "retrieve", "about": JAY} in calls and {"name": "critique", "about": "0"} in calls
    assert calls[-2:] == [{"name": "generate", "about": JAY}, {"name": "critique", "about": "1"}]
    shown = [
        line.split(maxsplit=1)
        for line in CliRunner().invoke(app, ["trace", "show", "last"]).stdout.splitlines()
    ]
    steps = {line[0]: line[1] for line in shown if line and line[0].startswith("act:")}
    assert steps["act:1"] == f"decompose '{PROMPT}'"
    assert steps["act:2"].startswith("generate; 1 image")
    assert steps["act:3"].startswith("critique 0")
    assert steps["act:4"].startswith(f"retrieve '{JAY}'") and len(steps) == 6
    output = json.loads(CliRunner().invoke(app, ["trace", "show", "last", "--json"]).stdout)
    assert [step["calls"] for step in output["steps"] if step["names"] == ["act:1"]] == [
        [f"decompose '{PROMPT}'"]
    ]


@pytest.mark.usefixtures("chat_place")
def test_a_rejected_reference_stays_vetoed() -> None:
    session = Chat()
    chat_output(session, PROMPT, "not that bird", "now make it snow")
    first, second, third = map(references, runs())
    assert first != second == third
    assert session.vetoes == set(first)


@pytest.mark.usefixtures("chat_place")
def test_references_are_listed_vetoed_and_pinned() -> None:
    session = Chat()
    chat_output(session, PROMPT)
    ids = numbered(chat_output(session, "/refs"), JAY)
    (used,) = references(runs()[0])
    other, third = [id for id in ids if id != used][:2]
    output = chat_output(session, f"/veto {ids[used]}", f"/pin {ids[third]}", "/refs", "again")
    assert f"{used} is not used any more." in output
    assert f"{JAY} is shown by {third}." in output
    assert "[used, vetoed]" in output and "[pinned]" in output
    assert references(runs()[-1]) == [third]
    output = chat_output(session, f"/veto {ids[used]}", f"/pin {ids[third]}", f"/veto {ids[third]}", "/refs")
    assert f"{used} is allowed." in output and "no longer pinned" in output
    assert session.vetoes == {third} and not session.pins and other not in session.vetoes


@pytest.mark.usefixtures("chat_place")
def test_a_veto_of_several_references_is_all_or_nothing() -> None:
    session = Chat()
    chat_output(session, PROMPT)
    first, second, third = list(numbered(chat_output(session, "/refs"), JAY))[:3]
    output = chat_output(session, "/veto 1 2", "/veto 3, 99", "/veto 2 2 3")
    assert output.count("is not used any more.") == 3 and f"{second} is allowed." in output
    assert "reference 99: there are" in output and session.vetoes == {first, third}
    assert (
        f"{JAY}: a concept can be pinned to one image only" in chat_output(session, "/pin 3 4")
        and not session.pins
    )
    assert "shown by" in chat_output(session, "/pin 4") and len(session.pins) == 1


@pytest.mark.usefixtures("chat_place")
def test_references_of_the_last_request_are_listed_first_and_weak_ones_are_marked() -> None:
    session = Chat()
    chat_output(session, PROMPT, "a barn owl", "/budget attempts=1", "a red car")
    changes = {"mllm.satisfied": False, "retrieval.threshold": 0.99, "budget.attempts": 2}
    session.set(overrides=session.overrides | changes)
    output = chat_output(session, f"{PROMPT.replace('blue jay', 'mallard')}", "/refs")
    lines = [
        line for line in output.splitlines() if ".png " in line and "mallard:" in line or f"{JAY}:" in line
    ]
    weak, earlier = lines[:-4], lines[-4:]
    assert all("mallard:" in line and "[under the threshold]" in line for line in weak) and weak
    assert all(f"{JAY}:" in line and "[of an earlier request]" in line for line in earlier)
    assert "refused" in chat_output(session, "whatever")
    assert [reference.concept for reference in session.references()][:1] == ["mallard"]


@pytest.mark.usefixtures("chat_place")
def test_rejecting_a_reference_that_was_not_used_generates_nothing() -> None:
    session = Chat(overrides={"mllm.satisfied": False, "retrieval.threshold": 0.99, "budget.attempts": 2})
    output = chat_output(session, PROMPT, "not that bird")
    assert "No reference that 'barn owl, blue jay' could mean was used for the last picture" in output
    assert "cannot draw" not in output and result_of(runs()[1]).outcome.best is None
    assert chat_output(session, "again").count("attempt 1") == 1


@pytest.mark.usefixtures("chat_place")
def test_approving_pins_the_references_of_the_last_image() -> None:
    session = Chat()
    assert "without references" in chat_output(session, "/approve")
    chat_output(session, PROMPT, "/approve")
    assert [pin.hit.id for pin in session.pins.values()] == references(runs()[0])


@pytest.mark.usefixtures("chat_place")
def test_a_fork_drops_later_requests_and_their_vetoes() -> None:
    session = Chat()
    chat_output(session, PROMPT, "now make it night", "not that bird", "/fork 2", "now in the snow")
    assert prompts()[-1] == f"{PROMPT} in the snow at night"
    assert len(session.runs) == 3 and not session.vetoes
    assert references(runs()[-1]) == references(runs()[0])
    assert "must be 1 to 3" in chat_output(session, "/fork 9")


def test_an_input_image_is_used_and_stored(chat_place: Path) -> None:
    Image.new("RGB", (16, 16), (9, 200, 9)).save(chat_place / "my finch.png")
    session = Chat()
    output = chat_output(session, f"/give 'my finch.png' {JAY}", PROMPT, "/refs")
    (chat_place / "my finch.png").unlink()
    chat_output(session, "now make it night")
    first, second = map(references, runs())
    assert first == second and len(first[0]) == 64
    assert f"{JAY}: @1 my finch.png  [used]" in output


@pytest.mark.usefixtures("chat_place")
def test_limits_apply_to_later_requests() -> None:
    session = Chat(overrides={"mllm.satisfied": False})
    output = chat_output(session, "/budget attempts=1", PROMPT, "/budget attempts=2", PROMPT, "/budget")
    assert "attempts 1" in output and "images no limit" in output
    attempts = [(state_of(run.id, home()) or pytest.fail("no state")).attempts for run in runs()]
    assert [len(group) for group in attempts] == [1, 2]


@pytest.mark.usefixtures("chat_place")
def test_image_options_apply_to_later_requests() -> None:
    session = Chat()
    output = chat_output(
        session, "/image width=24 guidance_scale=2.5", PROMPT, "/image width=none", PROMPT, "/image"
    )
    assert "width 24" in output and "height the generator's own" in output
    bests = [result_of(run).outcome.best for run in runs()]
    assert [(best.request.width, best.request.guidance_scale) for best in bests if best] == [
        (24, 2.5),
        (16, 2.5),
    ]


@pytest.mark.usefixtures("chat_place")
@pytest.mark.parametrize(
    "line",
    [
        *(
            "help",
            "Help.",
            "/help",
            "?",
            "What can you draw?",
            "what can I type",
            "hello",
            "thanks!",
            "ok.",
        ),
        *(
            "why?",
            "how much did this cost",
            "which references did you use?",
            "3",
            "```",
            "list",
            "show 2",
            "redo",
        ),
        *("undo 2", "refs", "Trace!", "save it as /x/y.png", "save ~/y.png"),
    ],
)
def test_commands_and_questions_about_the_program_are_no_run(line: str) -> None:
    assert chat_output(Chat(), line) and not runs()


@pytest.mark.usefixtures("chat_place")
@pytest.mark.parametrize("line", ["/quit", "quit", "exit", "Exit.", "/exit", "bye"])
def test_a_chat_is_left_in_several_words(line: str) -> None:
    assert "no such command" not in chat_output(Chat(), line, "/paint") and not runs()


@pytest.mark.usefixtures("chat_place")
def test_edits_of_the_scene_are_whole_prompts_by_rule() -> None:
    output = chat_output(
        Chat(),
        f"{PROMPT} in the snow",
        "remove the owl",
        "add a red car",
        "remove the jay, please",
        "remove the car",
    )
    assert prompts() == [
        f"{PROMPT} in the snow",
        "a blue jay in the snow",
        "a blue jay and a red car in the snow",
        "a red car in the snow",
    ]
    assert "remove 'red car': nothing else is in the image" in output and len(runs()) == 4


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("replace the jay with a red car", "a red car and a barn owl in the snow"),
        ("please swap the owl for red car.", "a blue jay and a red car in the snow"),
        ("turn the jay into a red car", "a red car and a barn owl in the snow"),
        ("instead of the jay, a red car", "a red car and a barn owl in the snow"),
        ("draw a husky instead of the owl", "a blue jay and a husky in the snow"),
        ("and a red car", "a blue jay and a barn owl and a red car in the snow"),
        ("without the owl", "a blue jay in the snow"),
        ("replace the dog with a car", None),
        ("change the owl to red", None),
        ("with a smile the old man looks at the sea", None),
        ("a wren with a red car", None),
    ],
)
def test_a_line_adds_removes_or_replaces_by_rule(line: str, prompt: str | None) -> None:
    scene = "a blue jay and a barn owl in the snow"
    assert read_scene_edit(line, scene, ["blue jay", "barn owl"]) == prompt


@pytest.mark.usefixtures("chat_place")
def test_what_was_undone_is_done_again() -> None:
    session = Chat()
    output = chat_output(session, PROMPT, "make it 2:1", "undo 2", "redo", "/redo", "redo", "undo", "/undo 9")
    assert len(session.runs) == 1 and len(runs()) == 2 and not session.overrides
    assert (
        output.count("Done again") == 2 and "nothing to redo" in output and "must be 1 to 1, got 9" in output
    )


@pytest.mark.usefixtures("chat_place")
def test_changes_of_the_size_count_from_then_on_and_are_undone() -> None:
    session = Chat()
    output = chat_output(
        session, PROMPT, "make it 2:1", "bigger", "now make it night", "undo", "undo", "undo"
    )
    requests = [best.request for run in runs() if (best := result_of(run).outcome.best)]
    assert [(request.width, request.height) for request in requests] == [
        (16, 16),
        (16, 8),
        (24, 16),
        (24, 16),
    ]
    assert {request.prompt for request in requests[:3]} == {PROMPT}
    assert "From now on width 16, height 8." in output
    assert len(session.runs) == 1 and not session.overrides


@pytest.mark.usefixtures("chat_place")
def test_a_size_before_the_first_image_and_a_refused_one_draw_nothing() -> None:
    session = Chat()
    output = chat_output(session, "make it 2:1", "bigger", "add a red car", "make it 20:1", "undo")
    assert not runs() and session.overrides == {"image.width": 16, "image.height": 8}
    assert "there is no image to scale yet" in output and "no image to change yet" in output
    assert "a ratio must be 1:8 to 8:1" in output and "nothing to undo" in output


@pytest.mark.usefixtures("chat_place")
def test_options_alone_apply_to_the_last_image() -> None:
    chat_output(Chat(), PROMPT, "--seed 7")
    assert [run.seed for run in runs()][1] == 7 and prompts() == [PROMPT, PROMPT]


def test_one_sees_where_one_is(chat_place: Path) -> None:
    session = Chat()
    output = chat_output(
        session, PROMPT, "now make it night", "/list", "/show 1", "/trace 1", "/save one.png", "/save one.png"
    )
    first, second = runs()
    assert f"  1  {PROMPT} (accepted)" in output and "  2  now make it night (accepted)" in output
    assert output.count(str(result_of(first).picture)) == 3  # of the run, the list and /show
    assert f"run {first.id}" in output and "act:1" in output
    assert f"pleinair trace export {first.id}" in output
    picture = result_of(second).picture
    assert picture and (chat_place / "one.png").read_bytes() == picture.read_bytes()
    assert "it exists already" in output
    assert f"`pleinair chat --thread {session.thread.id}` continues this chat." in output


@pytest.mark.usefixtures("chat_place")
@pytest.mark.parametrize("line", ["/list", "/show 1"])
@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_shows_links_and_thumbnails_where_it_has_colours(line: str, no_color: bool) -> None:
    session = Chat()
    chat_output(session, PROMPT)
    terminal = {"force_terminal": True, "color_system": "truecolor", "no_color": no_color}
    output = chat_output(session, line, **terminal)
    path = result_of(runs()[0]).picture
    assert path and re.search(rf"\x1b\]8;[^;]*;{re.escape(path.as_uri())}\x1b\\[^\x1b]*{path.name}", output)
    cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", output)
    with Image.open(path) as image:  # as wide as a thumbnail
        pixels: Any = [image.getpixel((x, y)) for y in range(0, 16, 2) for x in range(16)]
    assert [tuple(map(int, cell[:3])) for cell in cells] == ([] if no_color else pixels)


@pytest.mark.usefixtures("chat_place")
def test_undo_continues_from_before_the_last_request() -> None:
    session = Chat()
    output = chat_output(
        session, PROMPT, "not that bird", "/undo", "now in the snow", "/undo", "/undo", "/list"
    )
    assert references(runs()[-1]) == references(runs()[0]) and prompts()[-1] == f"{PROMPT} in the snow"
    assert "The chat begins anew." in output and not session.runs and not session.vetoes
    assert "There is no request yet." in output


@pytest.mark.usefixtures("chat_place")
def test_coming_back_shows_what_the_chat_goes_on_from() -> None:
    chat_output(Chat(), PROMPT, "not that bird")
    session = Chat(Threads().find("last"))
    assert session.runs == [run.id for run in runs()]
    output = chat_output(session, "/list")
    assert "Going on from request 2: not that bird (accepted)." in output
    assert (
        str(result_of(runs()[1]).picture) in output and "References that are not used any more: 1." in output
    )


@pytest.mark.usefixtures("chat_place")
def test_a_limit_is_lifted() -> None:
    session = Chat()
    output = chat_output(session, "/budget images=1", "/budget images=none")
    assert "images 1" in output and "images no limit" in output.split("images 1")[1]


def test_bytes_that_are_no_text_are_one_line_and_the_chat_goes_on(chat_place: Path) -> None:
    result = CliRunner().invoke(app, ["chat"], input=b"a wren \xff\xfe\n/veto " + b"9" * 5000 + b"\n/refs\n")
    assert result.exit_code == 0 and result.exception is None, result.output
    assert "not valid UTF-8" in result.output and "needs a number, got '9" in result.output
    assert "Nothing was retrieved yet." in result.output and not runs()


def test_a_home_that_cannot_be_written_is_one_line_and_the_chat_goes_on(
    chat_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (chat_place / "file").write_text("x", encoding="utf-8")
    monkeypatch.setenv("PLEINAIR_HOME", str(chat_place / "file" / "home"))
    output = chat_output(Chat(), PROMPT, "/list", "/help")
    assert output.count("pleinair: ") == 1 and "/veto N" in output and "There is no request yet." in output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/paint", "/paint: no such command; there are: /list"),
        ("/veto " + "9" * 5000, "/veto N …: needs a number, got '9999"),
        ("/image width=" + "9" * 5000, "width: a number has too many digits"),
        ("/show 1", "there is no request yet"),
        ("/save x.png", "there is no image to save yet"),
        ("/save", "/save FILE: needs a file or a folder"),
        ("/trace", "there is no request yet"),
        ("/budget attempts=none", "budget.attempts"),
        ("/veto", "/veto N …: needs a number, got nothing"),
        ("/veto 1 x", "/veto N …: needs a number, got 'x'"),
        ("/fork", "/fork N: needs a number, got nothing"),
        ("/fork 1 2", "/fork N: needs one number, got 2"),
        ("/give bird.png", "input image 'bird.png'"),
        ("/veto 3", "reference 3: there are 0"),
        ("/fork 1", "there is no request yet"),
        ("/budget attempts=0", "no image could be generated"),
        ("/budget paws=4", "budget.paws = 4"),
        ("/budget 4", "must be key=value"),
        ("/image width=63", "image.width = 63"),
        ("/image widht=64", "Did you mean `width`?"),
        (
            "/image reference_strength=0.5",
            "image.reference_strength = 0.5: generator `stripes` does not take it",
        ),
        ("/give", "/give FILE [CONCEPT]: needs a file"),
        ("/give nothing.png a bird", "input image 'nothing.png'"),
        ("/give 'a b", "No closing quotation"),
        ("x" * 2001, "2,001 characters"),
        ("\x1b[2J", "I cannot draw"),
    ],
)
@pytest.mark.usefixtures("chat_place")
def test_an_error_is_printed_and_the_chat_continues(line: str, message: str) -> None:
    output = chat_output(Chat(), line, "/help")
    assert message in output and "/veto N" in output
    assert "\x1b" not in output


@pytest.mark.usefixtures("chat_place")
def test_a_limit_in_usd_needs_a_price() -> None:
    session = Chat(overrides={"mllm.backend": "openai", "mllm.model": "m"})
    assert "no price is known for mllm.model = 'm'" in chat_output(session, "/budget usd=0.5")
    assert "budget.usd" not in session.overrides


@pytest.mark.usefixtures("chat_place")
def test_an_interrupt_between_requests_does_not_end_the_chat() -> None:
    output = chat_output(Chat(), KeyboardInterrupt(), "", PROMPT)
    assert "/quit leaves." in output and "accepted" in output
    assert "accepted" not in chat_output(Chat(), "/quit", PROMPT)


@pytest.mark.usefixtures("chat_place")
def test_texts_of_the_mllm_are_printed_without_control_characters() -> None:
    output = chat_output(Chat(overrides={"mllm.says": "Here \x1b[31myou are"}), PROMPT)
    assert "Here �[31myou are" in output


@pytest.mark.usefixtures("chat_place")
def test_a_refused_request_does_not_change_the_chat() -> None:
    output = chat_output(Chat(), PROMPT, "now make it louder", "what?", "now make it night")
    assert output.count("refused:") == 2 and 'cannot draw "louder"' in output
    assert prompts()[-1] == f"{PROMPT} at night"
    assert references(runs()[-1]) == references(runs()[0])


@pytest.mark.usefixtures("chat_place")
def test_a_failed_request_does_not_change_the_chat() -> None:
    session = Chat()
    chat_output(session, PROMPT)
    session.set(overrides={"generator.fault": "boom"})
    assert "failed: RuntimeError: boom" in chat_output(session, "now make it night")
    session.set(overrides={})
    chat_output(session, "again")
    assert runs()[-1].status == "accepted"


@pytest.mark.usefixtures("chat_place")
def test_a_chat_continues_from_its_last_run() -> None:
    chat_output(Chat(), PROMPT, "not that bird")
    session = Chat(Threads().find("last"))
    chat_output(session, "now make it night")
    assert prompts()[-1] == f"{PROMPT} at night"
    assert references(runs()[-1]) == references(runs()[-2])


@pytest.mark.usefixtures("chat_place")
def test_a_waiting_request_is_resumed_with_its_chat() -> None:
    session = Chat()
    chat_output(session, PROMPT)
    waiting = session.submit("now make it night")
    assert resume(waiting.id).outcome.ending == "accepted"
    assert prompts()[-1] == f"{PROMPT} at night"


@pytest.mark.usefixtures("chat_place")
def test_a_sidecar_of_a_chat_cannot_be_redrawn() -> None:
    chat_output(Chat(), PROMPT)
    with pytest.raises(BadInput, match="of a chat"):
        redraw(result_of(runs()[0]).sidecar)


@pytest.mark.usefixtures("chat_place")
def test_only_runs_of_a_chat_can_be_continued() -> None:
    from pleinair.app.api import draw

    run = draw(PROMPT, overrides={"mllm.backend": "quick"})
    with pytest.raises(BadInput, match="not a request of a chat"):
        Threads().from_run(run.run_id)


@pytest.mark.usefixtures("chat_place")
def test_the_command_reads_lines_from_a_pipe() -> None:
    result = CliRunner().invoke(app, ["chat"], input=f"{PROMPT}\n/refs\n/quit\n")
    assert result.exit_code == 0, result.output
    assert "accepted" in result.output and "[used]" in result.output
    result = CliRunner().invoke(app, ["chat", "--after", "last"], input="now make it night\n")
    assert result.exit_code == 0 and prompts()[-1] == f"{PROMPT} at night"
    assert CliRunner().invoke(app, ["chat", "--after", "nothing"]).exit_code == 2


def test_ctrl_c_cancels_the_run_and_not_the_program(chat_place: Path) -> None:
    command = [sys.executable, "-m", "pleinair.app.cli.main", "chat", "--set", "mllm.satisfied=false"]
    slow = ["--set", "mllm.pause=0.3", "--set", "budget.attempts=40"]
    with subprocess.Popen(
        [*command, *slow],
        env=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{PROMPT}\n")
        process.stdin.flush()
        for line in process.stdout:
            if "missing" in line:
                break
        process.send_signal(signal.SIGINT)
        process.stdin.write("/help\n/quit\n")
        process.stdin.close()
        rest = process.stdout.read()
    assert process.returncode == 0, rest
    assert "cancelled: you asked it to stop" in rest and "/veto N" in rest
    assert runs()[0].status == "cancelled"


@pytest.mark.usefixtures("chat_place")
def test_the_events_have_the_messages_of_the_chat() -> None:
    chat_output(Chat(), PROMPT, "now make it night")
    events = read(home().events(runs()[1].id))
    steps = [event.step for event in events if event.kind == "step_finished"]
    assert steps[:3] == ["begin", "drive", "act"]
    extras = [event.data.model_extra or {} for event in events]
    messages: Any = next(extra["messages"] for extra in extras if extra.get("messages"))
    assert json.loads(json.dumps(messages))[0]["data"]["content"] == "now make it night"


@pytest.mark.usefixtures("chat_place")
def test_threads_are_listed_opened_begun_and_named() -> None:
    session = Chat()
    output = chat_output(session, PROMPT, "/title two birds", "/new", "a barn owl", "/threads", "/thread 2")
    assert "  1  a barn owl (1 request" in output and "  2  two birds (1 request" in output
    assert "Going on with two birds." in output and f"Going on from request 1: {PROMPT}" in output
    assert session.runs == [runs()[0].id]
    output = chat_output(session, "/threads barn", "/thread 9", "/thread nothing", "/thread")
    assert "     a barn owl (1 request" in output and "     two birds (" in output
    assert "thread 9: must be 1 to 2" in output and "thread 'nothing': there is none" in output


@pytest.mark.usefixtures("chat_place")
def test_a_thread_is_continued_by_its_id() -> None:
    session = Chat()
    chat_output(session, PROMPT, "/budget attempts=3")
    id = session.thread.id
    result = CliRunner().invoke(app, ["chat", "--thread", id[:16]], input="now make it night\n/undo\n")
    assert result.exit_code == 0 and f"--thread {id}` continues" in result.output
    result = CliRunner().invoke(app, ["chat", "--thread", "last", "--set", "image.width=24"], input="redo\n")
    assert result.exit_code == 0 and "Done again: now make it night" in result.output
    (thread,) = Threads().newest(9)
    assert thread.runs == tuple(run.id for run in runs())
    assert thread.overrides["budget.attempts"] == 3
    for words in (["--thread", "nothing"], ["--thread", id, "--after", "last"]):
        assert CliRunner().invoke(app, ["chat", *words]).exit_code == 2


def test_the_tray_is_changed_by_commands(chat_place: Path) -> None:
    Image.new("RGB", (16, 16), (9, 200, 9)).save(chat_place / "mine.png")
    session = Chat()
    output = chat_output(
        session, "tray", "/give mine.png", f"/concept @1 {JAY}", "a @1 and a barn owl", "/reuse",
        "/use @1 @2", "/use @1, @9", "/tray", "/drop @2", "/strength 0.5", "/strength x", "/use", "/concept",
    )  # fmt: skip
    assert "The tray is empty." in output and f"{JAY} is shown by mine.png, @1." in output
    assert prompts() == [f"a {JAY} and a barn owl"] and len(references(runs()[0])[-1]) == 64
    assert "The image is @2 of the tray." in output and "@2 is removed." in output
    assert f"  @1  {JAY}: mine.png (not used)" in output
    assert "  @2  the whole image: a blue jay and a barn owl (not used)" in output
    assert "@9: no image of this thread has this handle" in output
    assert "generator `stripes` does not take it" in output
    assert "/strength X: needs a number from 0 to 1, got 'x'" in output
    assert output.count("needs the handle of an image") == 2
    assert [image.handle for image in session.thread.tray] == ["@1"]
    assert "  @3  the whole image" in chat_output(session, "/keep 1", "/reuse", "/tray")


@pytest.mark.usefixtures("chat_place")
def test_versions_are_drawn_and_chosen() -> None:
    session = Chat()
    output = chat_output(
        session, PROMPT, "/redraw 7", "/version 1", "/show", "/list", "/redraw x", "/version 9"
    )
    assert [run.seed for run in runs()][1] == 7 and len(session.thread.turns) == 1
    assert "Continuing from version 1 of request 1." in output and "version 1 of 2" in output
    assert f"run {runs()[0].id} (current)" in output and f"run {runs()[1].id}" in output
    assert "needs a number, got 'x'" in output and "version 9: must be 1 to 2" in output
    chat_output(session, f"2 images of {PROMPT}")
    assert len(session.thread.turns[-1].runs) == 2 and len(runs()) == 4


@pytest.mark.usefixtures("chat_place")
def test_a_request_is_drawn_by_another_graph() -> None:
    output = chat_output(Chat(), "/graph direct a barn owl", "/graph direct", "/graph dirct a barn owl")
    assert json.loads(runs()[0].request_json)["graph"] == "direct"
    assert "/graph NAME PROMPT: needs a graph and a prompt" in output and "Did you mean `direct`?" in output


@pytest.mark.usefixtures("chat_place")
def test_a_waiting_run_is_answered() -> None:
    session = Chat()
    output = chat_output(session, "/ask sometimes", "/approve yes", "/ask references", PROMPT)
    assert "must be references, draft or never" in output and "no run of this chat waits" in output
    assert f"Waiting for your approval before the first image with references: {PROMPT}" in output
    assert runs()[0].status == "waiting" and "[used]" in output
    output = chat_output(session, "now make it night", "/refs", "/approve maybe")
    assert "Waiting for your approval" in output and "message 1 waits for your approval" in output
    assert "must be yes, no, prompt TEXT, or OLD = NEW" in output
    ids = numbered(output.split("/approve maybe")[0], JAY)
    used = next(line.split()[3] for line in output.splitlines() if "[used]" in line)
    other = next(id for id in ids if id != used)
    output = chat_output(session, f"/veto {ids[used]}", f"/pin {ids[other]}", "/approve")
    assert "accepted" in output and references(runs()[0]) == [other]
    assert session.vetoes == {used} and [pin.hit.id for pin in session.pins.values()] == [other]


@pytest.mark.usefixtures("chat_place")
def test_a_waiting_run_is_stopped_or_told_another_prompt() -> None:
    session = Chat(overrides={"approve": "references"})
    output = chat_output(session, PROMPT, "/approve no")
    assert "cancelled: you stopped it before this image" in output
    output = chat_output(session, PROMPT, "/approve prompt a blue jay and a barn owl at night")
    assert prompts()[-1] == "a blue jay and a barn owl at night"
    output = chat_output(session, "/ask never", PROMPT)
    assert "ask for no approval" in output and "Waiting" not in output


@pytest.mark.usefixtures("chat_place")
def test_an_image_is_accepted_early_and_a_run_stopped() -> None:
    session = Chat(overrides={"approve": "references"})
    output = chat_output(session, "/accept", "/stop", PROMPT, "/accept", "/accept")
    assert output.count("there is no request yet") == 2
    assert "accepted: you accepted this image" in output and "it has ended already (accepted)" in output
    assert str(session.session.message().version.picture) in output.partition("you accepted")[2]
    output = chat_output(session, "/undo", PROMPT, "/stop", "/stop")
    assert "cancelled: you asked it to stop" in output and "request 1 has ended already" in output


def test_a_file_takes_the_place_of_a_planned_reference(chat_place: Path) -> None:
    Image.new("RGB", (16, 16), (9, 200, 9)).save(chat_place / "mine.png")
    session = Chat(overrides={"approve": "references"})
    chat_output(session, PROMPT, f"/give mine.png {JAY}", "/approve")
    assert [image.picture.sha256 for image in session.thread.tray] == references(runs()[0])


@pytest.mark.usefixtures("chat_place")
def test_a_concept_of_a_plan_is_renamed_and_asked_about_again() -> None:
    session = Chat(overrides={"approve": "references"})
    output = chat_output(session, PROMPT, f"/approve {JAY} = red car", "/approve")
    assert output.count("Waiting for your approval") == 2 and "red car: " in output
    assert runs()[0].status != "waiting"


@pytest.mark.usefixtures("chat_place")
def test_several_images_that_cost_money_are_confirmed_in_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")  # nothing is sent
    session = Chat(
        overrides={
            "generator.backend": "openai_images",
            "generator.model": "m",
            "budget.usd": None,
        }
    )
    output = chat_output(session, f"4 images of {PROMPT}", "no", "/list")
    assert "not confirmed" in output and "There is no request yet." in output and not runs()
    session.submit(f"4 images of {PROMPT}", yes=True)
    assert len(session.thread.turns[0].runs) == len(runs()) == 4
