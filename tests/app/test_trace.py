"""Storyboards: one file, nothing from outside, every text escaped, also of runs that have not ended."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pleinair.app.draw import draw, finish, home, run_table, submit
from pleinair.app.record import Event
from pleinair.app.runs import Run
from pleinair.app.trace import export
from pleinair.tools.types import BadInput

PROMPT = 'two things <script>alert("1")</script> & more'
HARMLESS = set(
    "html head meta title style body header p h1 h2 h3 span dl div dt dd table thead tbody tr th td main "
    "article small img figure figcaption svg g rect text ul li b em footer".split()
)
VOID = {"meta", "img", "rect"}


class Page(HTMLParser):
    """Read a page: its tags, what it loads, and its text; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.meta: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = {key: value or "" for key, value in attrs}
        self.loads += [found[key] for key in ("src", "href", "srcset", "data", "action") if key in found]
        assert not any(key.startswith("on") or key == "style" for key in found)
        if tag == "meta" and "http-equiv" in found:
            self.meta[found["http-equiv"]] = found["content"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(run: Run, file: Path) -> Page:
    export(run, home(), file)
    return Page(file.read_text(encoding="utf-8"))


@pytest.fixture
def drawn(place: Path) -> Run:
    return run_table().get(draw(PROMPT, seed=7).run_id)


def test_the_page_needs_nothing_from_outside(drawn: Run, place: Path) -> None:
    shown = page(drawn, place / "run.html")
    assert shown.loads and all(source.startswith("data:image/png;base64,") for source in shown.loads)
    assert "url(" not in (place / "run.html").read_text(encoding="utf-8")
    assert "@import" not in (place / "run.html").read_text(encoding="utf-8")


def test_everything_is_escaped(drawn: Run, place: Path) -> None:
    shown = page(drawn, place / "run.html")
    assert set(shown.tags) <= HARMLESS
    assert PROMPT in shown.text
    assert "first <b>thing</b>" in shown.text and "<i>Nobody</i>" in shown.text


def test_the_policy_allows_nothing_but_its_own_style(drawn: Run, place: Path) -> None:
    import base64
    import hashlib

    policy = page(drawn, place / "run.html").meta["Content-Security-Policy"]
    style = re.search("<style>(.*)</style>", (place / "run.html").read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:")
    assert f"style-src 'sha256-{digest}'" in policy


def test_it_tells_the_whole_story(drawn: Run, place: Path) -> None:
    shown = page(drawn, place / "run.html")
    words: tuple[str, ...] = ("accepted", "every concept is present", drawn.id, "stripes")
    words += ("Draft", "Attempt 1", "★ best")
    words += ("None: drawn from the words alone.", "CC0-1.0", "rank 1 of 4", "Found, not picked")
    words += ("Add reference for “second thing”", "missing 90%", "present 90%", "2 pictures, 3 questions")
    assert [word for word in words if word not in shown.text] == []
    assert shown.loads and len(shown.loads) == 2 + 1 + 3  # attempts, the reference, the ones not picked


def test_the_board_is_a_picture_too(drawn: Run, place: Path) -> None:
    export(drawn, home(), place / "run.png")
    with Image.open(place / "run.png") as board:
        assert board.width > 1000 and board.height > 1000


def test_a_library_that_has_gone_leaves_gaps(drawn: Run, place: Path) -> None:
    (place / "library").rename(place / "elsewhere")
    assert len(page(drawn, place / "run.html").loads) == 3
    export(drawn, home(), place / "run.png")


@pytest.mark.parametrize("count", [1, 5, 8, 13, 17, 20])
def test_a_run_that_was_cut_short_is_shown_as_far_as_it_got(place: Path, count: int) -> None:
    run, seen = submit(PROMPT, seed=7), list[Event]()

    def on_event(event: Event) -> None:
        seen.append(event)
        if len(seen) == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(run, on_event)
    assert "open" in page(run, place / "run.html").text


def test_a_resumed_run_tells_each_thing_once(place: Path) -> None:
    run, seen = submit(PROMPT, seed=7), list[Event]()

    def on_event(event: Event) -> None:
        seen.append(event)
        if len(seen) == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(run, on_event)
    finish(run)
    shown = page(run_table().get(run.id), place / "run.html")
    assert len(shown.loads) == 6 and "2 pictures, 3 questions" in shown.text


def test_a_run_that_has_not_begun_has_no_story(place: Path) -> None:
    with pytest.raises(BadInput, match="nothing has happened yet"):
        export(submit(PROMPT), home(), place / "run.html")


def test_only_two_kinds_of_file(drawn: Run, place: Path) -> None:
    with pytest.raises(BadInput, match=r"ends in \.html or \.png"):
        export(drawn, home(), place / "run.pdf")
