"""Terminals of several widths, with and without colours: whole words, whole lines, no spinner left behind."""

import fcntl
import io
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console
from rich.text import Text

from pleinair.app.api import finish, run_table, submit
from pleinair.app.cli.live import LiveView
from pleinair.app.cli.terminal import _hanging, logging_notes, new_console, progress_bar, shown_on
from pleinair.app.runs.results import result_of

PROMPT = "two extraordinarily --seed 7 --v 6 unmistakable things beside a lighthouse of sandstone in the fog"
REMARK = "a warning about something that was lowered because the memory was not enough"
SPINNER = re.compile("[⠀-⣿]")
CONTROL = re.compile(r"\x1b\[(\??)(\d*)(?:;[\d;]*)?([A-Za-z])|\x1b\]8;[^\x1b]*\x1b\\")
Colours = Literal["truecolor"]


def screen(output: str, width: int) -> list[str]:
    """Return the lines that a terminal shows in the end: line feeds, returns, cursor up and erased lines."""
    rows, row, column, at = [""], 0, 0, 0
    while at < len(output):
        if match := CONTROL.match(output, at):
            number = int(match[2] or 1) if match[3] else 1
            row = max(row - number, 0) if match[3] == "A" and not match[1] else row
            rows[row] = "" if match[3] == "K" else rows[row]
            at = match.end()
            continue
        char, at = output[at], at + 1
        if char == "\n":
            row, column, rows = row + 1, 0, rows + [""] * (row + 2 - len(rows))
        elif char == "\r":
            column = 0
        elif char.isprintable():
            if column == width:
                row, rows, column = row + 1, rows + [""] * (row + 2 - len(rows)), 0
            rows[row] = rows[row][:column].ljust(column) + char + rows[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in rows]


def live_lines(width: int, colours: Colours | None, environment: dict[str, str]) -> list[str]:
    file = io.StringIO()
    console = Console(
        file=file, width=width, height=30, force_terminal=True, color_system=colours, _environ=environment
    )
    run = submit(PROMPT)
    with logging_notes(), LiveView(run, console) as view:
        logging.getLogger("pleinair.tools.worker").warning(REMARK)
        finish(run, view.event)
    return screen(file.getvalue(), width)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize(
    ("colours", "environment"),
    [
        ("truecolor", {"TERM": "xterm-256color"}),
        (None, {"TERM": "xterm-256color", "NO_COLOR": "1"}),
        (None, {"TERM": "dumb"}),
    ],
)
def test_lines_are_whole_words_at_any_width(
    width: int, colours: Colours | None, environment: dict[str, str]
) -> None:
    lines = live_lines(width, colours, environment)
    words = " ".join(" ".join(lines).split())
    assert "two extraordinarily unmistakable things beside a lighthouse of sandstone in the fog" in words
    assert f"note: {REMARK}" in words and "WARNING" not in words
    assert "from the prompt: “--v 6”: not an option of this program; left out" in words
    assert "accepted: every concept is present" in words
    assert not SPINNER.search(words) and max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "indent"), [(40, 10), (80, 10), (30, 10)])
def test_wrapped_lines_are_indented_where_there_is_room(width: int, indent: int) -> None:
    console = Console(width=width, file=io.StringIO())
    text = "pleinair: retrieval.k = 0: input should be greater than or equal to 1, a whole number"
    first, *others = _hanging(Text(text), console, indent).plain.split("\n")
    assert " ".join([first, *(other.strip() for other in others)]) == text
    assert bool(others) == (width - indent >= 24)
    assert all(other.startswith(" " * indent) and len(other) <= width for other in others)


def test_a_dumb_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "40")
    assert new_console().width == 40


def test_a_warning_is_one_note_whatever_the_root_logger_does(capsys: pytest.CaptureFixture[str]) -> None:
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        with logging_notes(), progress_bar("Indexing"):
            logging.getLogger("pleinair.tools").warning("one\ntwo")
            logging.getLogger("pleinair.tools").info("three")
    finally:
        root.removeHandler(handler)
    assert capsys.readouterr().err == "note: one two\n"
    assert logging.getLogger("pleinair").propagate


def test_notes_are_printed_by_the_console_of_the_live_view(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO())
    with logging_notes(), shown_on(console):
        logging.getLogger("pleinair.x").warning("here")
    assert console.file.getvalue() == "note: here\n"  # type: ignore[attr-defined]
    assert not capsys.readouterr().err


def on_a_terminal(width: int, *arguments: str, stop_at: str = "") -> tuple[int, str]:
    """Run the command on a terminal of a width; a Ctrl-C is sent when its output has `stop_at`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "pleinair.app.cli.main", *arguments]
    with subprocess.Popen(
        command, env={**environment, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the program has closed the terminal
                break
            output += data
            if stop_at and stop_at in output.decode(errors="replace"):
                process.send_signal(signal.SIGINT)
                stop_at = ""
            if not data:
                break
    os.close(ours)
    return process.returncode, output.decode()


def test_a_stopped_run_stores_the_best_image_and_leaves_no_spinner_on_the_terminal(place: Path) -> None:
    slow = ("--set", "generator.pause=0.2", "--set", "mllm.satisfied=false", "--max-attempts", "50")
    code, output = on_a_terminal(40, "draw", "two things", *slow, stop_at="missing")
    lines = screen(output, 40)
    (run,) = run_table().newest(2)
    picture = result_of(run).picture
    assert code == 130 and run.status == "cancelled" and picture and picture.exists(), output
    assert not SPINNER.search("\n".join(lines)) and output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l")
    assert "Stopping after this step; once more to" in lines and "stop at once." in lines
    assert any(line.startswith("cancelled: you asked it to stop") for line in lines)


def test_an_error_is_wrapped_between_words_on_a_terminal(place: Path) -> None:
    code, output = on_a_terminal(40, "draw", "two things", "--graph", "nothing-of-the-kind")
    lines = screen(output, 40)
    assert code == 2 and max(map(len, lines)) <= 40
    assert lines[0] == "pleinair: graph 'nothing-of-the-kind':" and lines[1].startswith(" " * 10 + "unknown;")


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [("> /dev/full", 5, "cannot write the output"), (">&-", 0, ""), (">&- 2>&-", 0, "")],
)
def test_an_output_that_cannot_be_written_ends_in_one_line(output: str, code: int, words: str) -> None:
    program = "from pleinair.app.cli.main import main; main()"
    command = f"{sys.executable} -c '{program}' --help {output}"
    result = subprocess.run(command, shell=True, text=True, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, len(result.stderr.splitlines())) == (code, bool(words))
    assert words in result.stderr
