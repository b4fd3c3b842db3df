"""Messages of MLLM calls in the terminal and as JSON, and differences between prompts."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pleinair.app.api import draw
from pleinair.app.cli.main import app
from pleinair.app.trace.prompts import Piece, word_changes


def test_the_command_shows_messages_only_if_asked(place: Path) -> None:
    draw("two things", seed=7)
    brief, full = (
        CliRunner().invoke(app, ["trace", "show", "last", *flags]).output for flags in ([], ["--messages"])
    )
    assert "Break the prompt into the concepts" not in brief
    assert "Break the prompt into the concepts" in full.replace("\n", " ") and "reply" in full
    assert full.count("\n  call ") == 3


def test_the_json_has_the_messages_of_each_step(place: Path) -> None:
    draw("two things", seed=7)
    shown = json.loads(CliRunner().invoke(app, ["trace", "show", "last", "--messages", "--json"]).output)
    numbers = [number for step in shown["steps"] for number in step.get("mllm_calls", ())]
    assert numbers == [call["number"] for call in shown["mllm_calls"]] == [1, 2, 3]
    first = shown["mllm_calls"][0]["tries"][0]
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first["reply"]["calls"][0]["name"] == "Decomposition"


@pytest.mark.parametrize(
    ("before", "after", "pieces"),
    [
        ("a red wren", "a red wren", [("same", "a red wren")]),
        ("a red wren", "a blue wren", [("same", "a "), ("del", "red "), ("ins", "blue "), ("same", "wren")]),
        ("a wren", "a wren in snow", [("same", "a wren "), ("ins", "in snow")]),
        ("", "a wren", [("ins", "a wren")]),
    ],
)
def test_words_that_differ(before: str, after: str, pieces: list[tuple[str, str]]) -> None:
    assert word_changes(before, after) == [Piece(*piece) for piece in pieces]  # type: ignore[arg-type]


@given(st.text(" ab", max_size=30), st.text(" ab", max_size=30))
def test_the_second_text_is_whole(before: str, after: str) -> None:
    pieces = word_changes(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "del") == after


def test_two_attempts_of_a_run_differ_by_the_command(place: Path) -> None:
    draw("two things", seed=7)
    result = CliRunner().invoke(app, ["trace", "diff", "last:0", "last:1"])
    assert result.exit_code == 1 and "reference · second thing: –" in result.output
    assert "settings" not in result.output
    assert CliRunner().invoke(app, ["trace", "diff", "last:0", "last:0"]).exit_code == 0
    assert CliRunner().invoke(app, ["trace", "diff", "last:0", "last:7"]).exit_code == 2
