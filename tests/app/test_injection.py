"""Five hundred hostile texts in libraries on disk: pages and terminals only display them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unicodedata import category

import pytest
from support.html_page import HARMLESS, Page
from support.injections import WHO, texts, watched
from support.quick_engines import colour, speckled
from typer.testing import CliRunner

from pleinair.app.api import home, run_table
from pleinair.app.cli.main import app
from pleinair.app.storyboard.export import export
from pleinair.app.texts import printable_json

EACH = 63  # texts of one library; a retrieval returns up to 64 images
PROMPT = "two things"


def write_library(folder: Path, part: list[str], everything: list[str]) -> None:
    """Write texts as caption, license, author, source and, as far as files can, as name."""
    folder.mkdir(parents=True)
    lines = []
    for number, text in enumerate(part):
        start = everything.index(text)
        other = [everything[(start + turn) % len(everything)] for turn in range(1, 4)]
        name = f"{number} {''.join('_' if not char.isprintable() else char for char in text)}.png"
        name = name.replace("/", "∕").replace("\\", "∖")
        speckled(16, colour(f"{number} {text}")).save(folder / name, "PNG")
        facts = {"text": text, "license": other[0], "author": other[1], "source": other[2]}
        lines.append(json.dumps({"file_name": name, **facts}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def control_characters(text: str) -> list[str]:
    """List the control characters and changes of direction in a text, which affect a terminal."""
    return sorted({char for char in text if char != "\n" and category(char) in ("Cc", "Cf", "Zl", "Zp")})


def output_of(*words: str, typed: str | None = None) -> str:
    """Run a command and return its output to a terminal."""
    result = CliRunner().invoke(app, words, input=typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert control_characters(result.output) == [], words
    return result.output


@contextmanager
def isolated() -> Iterator[None]:
    with watched() as events:
        yield
    assert events == []


def harmless(page: Page) -> bool:
    """Return whether a page has only the elements, addresses and handlers of the storyboard."""
    links_away = [url for url in page.links if not url.startswith("#")]
    if any(not url.startswith(("https://", "http://")) for url in links_away):
        return False
    return set(page.tags) <= HARMLESS and all(url.startswith("data:image/png;base64,") for url in page.loads)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_a_page_and_a_terminal_only_display_them(part: int, place: Path) -> None:
    everything = texts()
    texts_of_part = everything[part * EACH : (part + 1) * EACH]
    folder = place / "hostile"
    write_library(folder, texts_of_part, everything)
    graph = ("pleinair", "imagerag", "crossmodal")[part % 3]
    with isolated():
        output = output_of(
            "draw", PROMPT, "--library", str(folder), "--set", "retrieval.k=64", "--graph", graph
        )
        run = run_table().newest(1)[0]
        export(run, home(), place / "run.html")
        for words in (("trace", "show", "last"), ("runs", "show", "last"), ("runs", "list")):
            output += output_of(*words) + output_of(*words, "--json")
        output_of("trace", "export", "last", str(place / "run.png"))
    page = (place / "run.html").read_text(encoding="utf-8")
    assert harmless(Page(page))
    if graph == "pleinair":
        assert page.count(WHO) > len(texts_of_part) / 3  # all of them are displayed as text


def test_messages_of_an_index_only_display_them(place: Path) -> None:
    everything, folder = texts(), place / "hostile"
    write_library(folder, everything[:3], everything)
    for number, text in enumerate(["\u202egnp.finch", "\u2066\u200b", "\x1b[2J", "\x9b31m", "[red]"]):
        (folder / f"{number}{text}.png").write_text(text, encoding="utf-8")
    output = ""
    with isolated():
        for text in [text for text in everything if control_characters(text)][:40]:
            (folder / "metadata.jsonl").write_text(json.dumps({"file_name": text}), encoding="utf-8")
            output += output_of("index", str(folder))
    assert "gnp.finch" in output and "control characters" in output


def test_a_chat_only_displays_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything, folder = texts(), place / "hostile"
    write_library(folder, everything[:64], everything)
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", str(folder))
    prompt = "a blue jay and a barn owl"
    with isolated():
        output = output_of("chat", typed=f"{prompt}\n/refs\n/veto 1\n/pin 2\n/refs\n/quit\n")
        assert "[used]" in output
        export(run_table().newest(1)[0], home(), place / "run.html")
    assert harmless(Page((place / "run.html").read_text(encoding="utf-8")))


@pytest.mark.parametrize("number", range(0, 500, 25))
def test_json_output_is_valid_and_without_control_characters(number: int) -> None:
    part = {text: [text, 1.5, None] for text in texts()[number : number + 25]} | {"\U000e0001": "é二"}
    written = printable_json(part)
    assert json.loads(written) == part
    assert control_characters(written) == [] and "é二" in written
