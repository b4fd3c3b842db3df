"""Storyboards: order of their parts, no repetitions, accessibility."""

import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.html_page import HARMLESS, Page

from pleinair.app.api import draw, find, home
from pleinair.app.runs.events import Snapshot
from pleinair.app.runs.request import read_request
from pleinair.app.storyboard import png as sheets
from pleinair.app.storyboard.gallery import Gallery, Shown
from pleinair.app.storyboard.html import TEMPLATES, page
from pleinair.app.storyboard.png import Column, board, columns, font, wrapped
from pleinair.app.storyboard.words import listed, marked, roomy
from pleinair.app.trace.trace import AttemptTrace, Trace, trace_begun
from pleinair.tools.types import Attempt, Box, GenerateRequest, Ledger, Picture, Row

REFUSAL = "I would rather not draw this. " * 9
PLACE: Box = (0.25, 0.25, 0.75, 0.75)
THEMES = re.compile(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)")


def board_of(**overrides: Any) -> tuple[Trace, Gallery]:
    prompt, graph = overrides.pop("prompt", "two things"), overrides.pop("graph", "pleinair")
    run = find(draw(prompt, seed=7, graph=graph, overrides=overrides).run_id)
    return trace_begun(run, home()), Gallery(run.id, read_request(run.request_json), home())


def written(trace: Trace, gallery: Gallery) -> str:
    return " ".join(line for column in columns(trace, gallery) for line in column.lines)


def trace_of(*rows: Row) -> AttemptTrace:
    request = GenerateRequest(prompt="a", height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0)
    picture = Picture(sha256="0" * 64, width=8, height=8)
    attempt = Attempt(number=0, request=request, picture=picture, seconds=1, ledger=Ledger(rows=rows))
    return AttemptTrace(attempt, [], [], (), best=False)


def row_of(status: Any, box: Box | None = PLACE) -> Row:
    return Row(concept="a", status=status, confidence=1, box=box)


def test_the_picture_comes_first_and_the_decision_before_the_references(place: Path) -> None:
    card = page(*board_of()).split("<article")[2]
    marks = ("<h2>Attempt 1", "<figure", "Ledger", "Decision", "Prompt as sent", "References", "not selected")
    places = [card.index(words) for words in marks]
    assert places == sorted(places)


def test_headings_are_in_order_and_pictures_have_words(place: Path) -> None:
    text = page(*board_of())
    levels = [int(tag[1]) for tag in Page(text).tags if re.fullmatch(r"h\d", tag)]
    assert levels[:3] == [1, 2, 3] and all(after - before <= 1 for before, after in pairwise(levels))
    assert len(re.findall(r'<img [^>]*alt="[^"]+"', text)) == text.count("<img ") == 6
    assert '<main class="board" tabindex="0" aria-label="Attempts">' in text


@pytest.mark.parametrize("theme", [0, 1])
def test_words_stand_out_from_what_is_behind_them(theme: int) -> None:
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    colours = {match[1]: match[2 + theme] for match in THEMES.finditer(style)}
    words, behind = ("ink", "soft", "present", "missing", "unsure"), ("paper", "card", "tint")
    assert min(contrast(colours[word], colours[back]) for word in words for back in behind) >= 4.5


def test_words_stand_out_on_the_sheet() -> None:
    words = (sheets.INK, sheets.SOFT, *sheets.COLOURS.values())
    assert min(contrast(colour, sheets.PAPER) for colour in words) >= 4.5


def contrast(first: str, second: str) -> float:
    """Return the ratio of two colours' luminances as WCAG 2 defines it, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_mark_leaves_room_and_stays_in_the_picture() -> None:
    assert roomy((0.0, 0.5, 0.5, 1.0)) == pytest.approx((0.0, 0.46, 0.54, 1.0))
    ((label, row, box),) = marked(trace_of(row_of("present")))
    assert (label, row.box) == ("", PLACE) and box == pytest.approx((0.21, 0.21, 0.79, 0.79))


def test_what_is_unsure_has_no_mark_and_of_several_each_has_its_number() -> None:
    marks = marked(trace_of(row_of("unsure"), row_of("missing"), row_of("present", None), row_of("present")))
    assert [(label, row.status) for label, row, _ in marks] == [("2", "missing"), ("4", "present")]


def test_marks_are_drawn_over_the_picture(place: Path) -> None:
    trace, gallery = board_of(**{"mllm.box": [0, 0, 0.5, 0.5]})
    first, second = page(trace, gallery).split("<article")[1:]
    assert first.count("<path") == 2 and "<path" not in second
    without = board_of()
    assert board(trace, gallery) != board(*without)


def test_the_sheet_says_what_was_sent_found_and_spent(place: Path) -> None:
    trace, gallery = board_of()
    text = written(trace, gallery)
    seconds = [f"{attempt.attempt.seconds:.1f} s · seed 7" for attempt in trace.attempt_traces]
    words: tuple[str, ...] = tuple(seconds)
    words += ("(best)", "Prompt as sent two things", "None: generated from the prompt alone.", "rank 1 of 4")
    words += ("CC0-1.0 · <i>Nobody</i> · https://example.org/2?a=1&b=2", "Retrieved, not selected")
    words += (
        "second thing: missing 90%",
        "Add reference for “second thing”: no reference was tried yet",
        "encoder hashes",
    )
    assert [word for word in words if word not in text] == []


def test_what_the_library_did_not_have_is_on_both_storyboards(place: Path) -> None:
    trace, gallery = board_of(**{"retrieval.threshold": 1.0})
    assert "Nothing taken for “second thing”" in written(trace, gallery)
    assert "Nothing taken for “second thing”" in Page(page(trace, gallery)).text


def test_a_refusal_is_shown_once(place: Path) -> None:
    trace, gallery = board_of(**{"mllm.says": REFUSAL})
    assert trace.attempt_traces and trace.attempt_traces[0].decision == "Refused."
    assert Page(page(trace, gallery)).text.count(REFUSAL.strip()) == 1
    assert written(trace, gallery).count("I would rather not draw this.") == 9


def test_one_picture_alone_is_not_called_the_best(place: Path) -> None:
    trace, gallery = board_of(graph="direct")
    text = page(trace, gallery)
    assert trace.attempt_traces[0].best and '<body class="one">' in text
    assert "★ best" not in text
    assert "(best)" not in written(trace, gallery)
    assert '<body class="two">' in page(*board_of())


def test_signs_have_a_legend_where_there_is_a_table(place: Path) -> None:
    text = page(*board_of())
    assert '<p class="legend">' in text and 'aria-label="missing" title="missing">○</span>' in text
    without = page(*board_of(graph="direct"))
    assert "legend" not in without.split("<body")[1] and "<table>" not in without


def test_concepts_are_called_what_they_are(place: Path) -> None:
    assert listed(board_of()[0]) == "Must be visible"
    trace, gallery = board_of(graph="imagerag")
    assert listed(trace) == "Named as missing"
    assert "<small>Named as missing</small>second thing</p>" in page(trace, gallery)
    trace, gallery = board_of(graph="crossmodal", prompt="one and two")
    assert listed(trace) == "Concepts" and "<h2>First image</h2>" in page(trace, gallery)


def test_a_prompt_that_was_changed_stands_out(place: Path) -> None:
    trace, gallery = board_of()
    first = trace.attempts[0]
    assert '<p class="same">two things</p>' in page(trace, gallery)
    changed = first.request.model_copy(update={"prompt": "three <things>"})
    trace.attempts[0] = first.model_copy(update={"request": changed})
    assert '<p class="sent">three &lt;things&gt;</p>' in page(trace, gallery)
    assert "Prompt as sent three <things>" in written(trace, gallery)


def test_a_run_without_an_image_has_a_storyboard(place: Path) -> None:
    trace = Trace(Snapshot(run="1", prompt="a", graph="direct", seed=0))
    gallery = board_of()[1]
    assert "<main" not in page(trace, gallery) and set(Page(page(trace, gallery)).tags) <= HARMLESS
    with Image.open(io.BytesIO(board(trace, gallery))) as picture:
        assert picture.height < 600


def test_words_wrap_and_are_never_lost_in_silence() -> None:
    word = "https://example.org/" + "x" * 300
    lines = list(wrapped(f"from {word}", font(11), 300))
    assert lines[0] == "from" and "".join(lines[1:]) == word
    assert max(font(11).getlength(line) for line in lines) <= 300
    column = Column(150)
    column.text(word, 11, most=2)
    assert len(column.lines) == 2 and column.lines[1].endswith("…")


def test_an_image_keeps_its_shape_on_the_sheet() -> None:
    column, shown = Column(300), Shown(Image.new("RGB", (8, 4), "#ff0000"))
    column.y = 10
    column.picture(shown, 10, 100, 50)
    column.y = 100
    pixels = [column.image().getpixel(place) for place in ((20, 20), (219, 119), (219, 121), (221, 20))]
    assert [pixel == (255, 0, 0) for pixel in pixels] == [True, True, False, False]
