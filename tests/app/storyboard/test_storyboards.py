"""Storyboards: order of their sections, no repetitions, accessibility."""

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
from pleinair.app.storyboard import png
from pleinair.app.storyboard.export import render_html
from pleinair.app.storyboard.gallery import Gallery, ShownImage
from pleinair.app.storyboard.html import TEMPLATES
from pleinair.app.storyboard.png import Column, columns, font, legible, render_png, wrapped
from pleinair.app.storyboard.words import box_marks, concepts_heading, link
from pleinair.app.trace.trace import AttemptTrace, Trace, trace_begun
from pleinair.tools.types import Attempt, Box, GenerateRequest, Hit, Ledger, Picture, Row

REFUSAL = "I would rather not draw this. " * 9
BOX: Box = (0.25, 0.25, 0.75, 0.75)
THEMES = re.compile(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)")


def storyboard_of(**overrides: Any) -> tuple[Trace, Gallery]:
    prompt, graph = overrides.pop("prompt", "two things"), overrides.pop("graph", "pleinair")
    run = find(draw(prompt, seed=7, graph=graph, overrides=overrides).run_id)
    return trace_begun(run, home()), Gallery(run.id, read_request(run.request_json), home())


def png_text(trace: Trace, gallery: Gallery) -> str:
    return " ".join(line for column in columns(trace, gallery) for line in column.lines)


def attempt_trace(*rows: Row) -> AttemptTrace:
    request = GenerateRequest(prompt="a", height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0)
    picture = Picture(sha256="0" * 64, width=8, height=8)
    attempt = Attempt(number=0, request=request, picture=picture, seconds=1, ledger=Ledger(rows=rows))
    return AttemptTrace(attempt, [], [], (), best=False)


def row_of(status: Any, box: Box | None = BOX) -> Row:
    return Row(concept="a", status=status, confidence=1, box=box)


def test_sections_are_in_order_from_the_image_to_the_references(place: Path) -> None:
    article = render_html(*storyboard_of()).split("<article")[2]
    sections = (
        "<h2>Attempt 1",
        "<figure",
        "Ledger",
        "Decision",
        "Prompt as sent",
        "References",
        "not selected",
    )
    positions = [article.index(section) for section in sections]
    assert positions == sorted(positions)


def test_headings_are_in_order_and_images_have_alternative_texts(place: Path) -> None:
    text = render_html(*storyboard_of())
    levels = [int(tag[1]) for tag in Page(text).tags if re.fullmatch(r"h\d", tag)]
    assert levels[:3] == [1, 2, 3] and all(after - before <= 1 for before, after in pairwise(levels))
    assert len(re.findall(r'<img [^>]*alt="[^"]+"', text)) == text.count("<img ") == 6
    assert '<main class="board" tabindex="0" aria-label="Attempts">' in text


@pytest.mark.parametrize("theme", [0, 1])
def test_texts_of_the_page_have_enough_contrast(theme: int) -> None:
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    colours = {match[1]: match[2 + theme] for match in THEMES.finditer(style)}
    texts, backgrounds = ("ink", "soft", "present", "missing", "unsure"), ("paper", "card", "tint")
    pairs = [(colours[text], colours[background]) for text in texts for background in backgrounds]
    assert min(contrast(*pair) for pair in pairs) >= 4.5


def test_texts_of_the_png_have_enough_contrast() -> None:
    colours = (png.INK, png.SOFT, *png.COLOURS.values())
    assert min(contrast(colour, png.PAPER) for colour in colours) >= 4.5


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours by WCAG 2, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_mark_has_a_margin_and_stays_in_the_image() -> None:
    ((_, _, box),) = box_marks(attempt_trace(row_of("present", (0.0, 0.5, 0.5, 1.0))))
    assert box == pytest.approx((0.0, 0.46, 0.54, 1.0))
    ((label, row, box),) = box_marks(attempt_trace(row_of("present")))
    assert (label, row.box) == ("", BOX) and box == pytest.approx((0.21, 0.21, 0.79, 0.79))


def test_unsure_rows_have_no_mark_and_several_marks_are_numbered() -> None:
    marks = box_marks(
        attempt_trace(row_of("unsure"), row_of("missing"), row_of("present", None), row_of("present"))
    )
    assert [(label, row.status) for label, row, _ in marks] == [("2", "missing"), ("4", "present")]


def test_marks_are_drawn_over_the_image(place: Path) -> None:
    trace, gallery = storyboard_of(**{"mllm.box": [0, 0, 0.5, 0.5]})
    first, second = render_html(trace, gallery).split("<article")[1:]
    assert first.count("<path") == 2 and "<path" not in second
    assert render_png(trace, gallery) != render_png(*storyboard_of())


def test_references_have_their_file_their_score_by_kind_and_a_link_to_their_source(place: Path) -> None:
    trace, gallery = storyboard_of(**{"retrieval.method": "hybrid"})
    page = Page(render_html(trace, gallery))
    (reference,) = trace.attempts[1].request.references
    assert reference.hit.source in page.links and reference.hit.source not in page.loads
    assert reference.hit.id in page.text and "rank fusion 0.0" in page.text and "cosine " in page.text
    assert reference.hit.id in png_text(trace, gallery) and reference.hit.source in png_text(trace, gallery)


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("https://example.org/a?b=c", "https://example.org/a?b=c"),
        ("HTTPS://example.org", ""),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("https://example.org/a b", ""),
        ('https://example.org/"onclick="x', ""),
        ("a book", ""),
        ("", ""),
    ],
)
def test_only_web_addresses_are_links(source: str, address: str) -> None:
    assert link(Hit(id="a.png", score=1, source=source)) == address


def test_a_click_enlarges_an_image_and_another_one_closes_it(place: Path) -> None:
    text = render_html(*storyboard_of())
    ids = re.findall(r'class="zoom" id="([^"]+)" href="#\1"', text)
    assert len(ids) == len(set(ids)) == text.count("<img ") == text.count('class="close" href="#"') == 6
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    assert ".zoom:target img" in style and "object-fit: cover" not in style


def test_an_image_of_another_shape_is_shown_as_a_whole() -> None:
    column, portrait = Column(60), Image.new("RGB", (4, 16), "#ff0000")
    portrait.paste("#0000ff", (0, 0, 4, 4))
    column.paste(ShownImage(portrait), 0, 56, 56)
    column.y = 56
    pixels = [column.image().getpixel(place) for place in ((56, 10), (56, 100), (10, 56), (100, 56))]
    assert pixels[0] == (0, 0, 255) and pixels[1] == (255, 0, 0) and pixels[2] == pixels[3] != (255, 0, 0)


def test_the_png_has_prompts_references_ledgers_and_models(place: Path) -> None:
    trace, gallery = storyboard_of()
    text = png_text(trace, gallery)
    seconds = [f"{attempt.attempt.seconds:.1f} s · seed 7" for attempt in trace.attempt_traces]
    words: tuple[str, ...] = tuple(seconds)
    words += ("(best)", "Prompt as sent two things", "None: generated from the prompt alone.", "rank 1 of 4")
    words += ("CC0-1.0 · <i>Nobody</i> https://example.org/2?a=1&b=2", "Retrieved, not selected")
    words += (
        "second thing: missing 90%",
        "Add reference for “second thing”: no reference was tried yet",
        "encoder hashes",
    )
    assert [word for word in words if word not in text] == []


def test_abstentions_are_on_both_storyboards(place: Path) -> None:
    trace, gallery = storyboard_of(**{"retrieval.threshold": 1.0})
    assert "No reference for “second thing”" in png_text(trace, gallery)
    assert "No reference for “second thing”" in Page(render_html(trace, gallery)).text


def test_a_refusal_is_shown_once(place: Path) -> None:
    trace, gallery = storyboard_of(**{"mllm.says": REFUSAL})
    assert trace.attempt_traces and trace.attempt_traces[0].decision == "Refused."
    assert Page(render_html(trace, gallery)).text.count(REFUSAL.strip()) == 1
    assert png_text(trace, gallery).count("I would rather not draw this.") == 9


def test_a_single_image_is_not_marked_as_the_best(place: Path) -> None:
    trace, gallery = storyboard_of(graph="direct")
    text = render_html(trace, gallery)
    assert trace.attempt_traces[0].best and '<body class="one">' in text
    assert "★ best" not in text
    assert "(best)" not in png_text(trace, gallery)
    assert '<body class="two">' in render_html(*storyboard_of())


def test_a_table_of_concepts_has_a_legend(place: Path) -> None:
    text = render_html(*storyboard_of())
    assert '<p class="legend">' in text and 'aria-label="missing" title="missing">○</span>' in text
    without = render_html(*storyboard_of(graph="direct"))
    assert "legend" not in without.split("<body")[1] and "<table>" not in without


def test_the_heading_of_the_concepts_depends_on_the_graph(place: Path) -> None:
    assert concepts_heading(storyboard_of()[0]) == "Must be visible"
    trace, gallery = storyboard_of(graph="imagerag")
    assert concepts_heading(trace) == "Named as missing"
    assert "<small>Named as missing</small>second thing</p>" in render_html(trace, gallery)
    trace, gallery = storyboard_of(graph="crossmodal", prompt="one and two")
    assert concepts_heading(trace) == "Concepts" and "<h2>First image</h2>" in render_html(trace, gallery)


def test_a_changed_prompt_is_highlighted(place: Path) -> None:
    trace, gallery = storyboard_of()
    first = trace.attempts[0]
    assert '<p class="same">two things</p>' in render_html(trace, gallery)
    changed = first.request.model_copy(update={"prompt": "three <things>"})
    trace.attempts[0] = first.model_copy(update={"request": changed})
    assert '<p class="sent">three &lt;things&gt;</p>' in render_html(trace, gallery)
    assert "Prompt as sent three <things>" in png_text(trace, gallery)


def test_a_run_without_an_image_has_a_storyboard(place: Path) -> None:
    trace = Trace(Snapshot(run="1", prompt="a", graph="direct", seed=0))
    gallery = storyboard_of()[1]
    assert (
        "<main" not in render_html(trace, gallery) and set(Page(render_html(trace, gallery)).tags) <= HARMLESS
    )
    with Image.open(io.BytesIO(render_png(trace, gallery))) as image:
        assert image.height < 600


def test_long_words_are_wrapped_and_cut_texts_end_in_an_ellipsis() -> None:
    word = "https://example.org/" + "x" * 300
    lines = list(wrapped(f"from {word}", font(11), 300))
    assert lines[0] == "from" and "".join(lines[1:]) == word
    assert max(font(11).getlength(line) for line in lines) <= 300
    column = Column(150)
    column.text(word, 11, most=2)
    assert len(column.lines) == 2 and column.lines[1].endswith("…")


def test_signs_that_the_typeface_lacks_are_drawn_as_similar_ones() -> None:
    assert legible("96 × 64 · “café” – 中 ½") == "96 x 64 · “cafe” - 中 ½"
    lines = ["96 × 64, café", "96 x 64, cafe"]
    drawn, similar = (Column(200), Column(200))
    drawn.text(lines[0])
    similar.text(lines[1])
    assert drawn.image().tobytes() == similar.image().tobytes()
    assert drawn.lines == lines[:1]


def test_a_pasted_image_has_its_place_and_size() -> None:
    column, shown = Column(300), ShownImage(Image.new("RGB", (8, 4), "#ff0000"))
    column.y = 10
    column.paste(shown, 10, 100, 50)
    column.y = 100
    pixels = [column.image().getpixel(place) for place in ((20, 20), (219, 119), (219, 121), (221, 20))]
    assert [pixel == (255, 0, 0) for pixel in pixels] == [True, True, False, False]
