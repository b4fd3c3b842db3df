"""Judging in a browser: by keyboard, over reloads and a killed server, by two judges at once; axe-core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from support.browser import DESK, PHONE, JudgingServer, NewVisitor, Visitor

from pleinair.app.comparison.results import resolved, results_of
from pleinair.app.comparison.study import SIDES, open_study, source_at
from pleinair.app.comparison.votes import QUESTIONS, Votes

PROMPTS = [f"a finch of the {number}th kind, on a branch beside a nest" for number in range(5)]
SIZES = {"a": (300, 200), "b": (200, 320)}  # pixels; a judge may see them, and no page has them
KEYS = {"left": ("1", "ArrowLeft"), "tie": ("2", "ArrowDown"), "right": ("3", "ArrowRight")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JudgingServer]:
    """Start a judging of two folders of images."""
    for name, size in SIZES.items():
        (tmp_path / name).mkdir()
        for number, prompt in enumerate(PROMPTS):
            image = Image.effect_noise(size, 40 + number).convert("RGB")
            image.save(tmp_path / name / f"{number}.png")
            sidecar = {"format": 1, "order": {"prompt": prompt}, "seed": number}
            (tmp_path / name / f"{number}.json").write_text(json.dumps(sidecar), "utf-8")
    options = (str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "study"))
    with JudgingServer(tmp_path / "home", *options) as server:
        yield server


def votes_of(place: Path) -> list[dict[str, str]]:
    study = open_study(place / "study")
    return list(resolved(study, Votes(place / "study", study).current()))


def begin(visitor: Visitor, name: str) -> Page:
    """Give a name by keyboard; the field has the focus."""
    page = visitor.visit("/")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    place_of(page, 1)
    return page


def pair_of(page: Page) -> str:
    return str(page.locator("[name=pair]").get_attribute("value"))


def place_of(page: Page, number: int) -> None:
    """Wait for the pair of a number."""
    expect(page.get_by_text(f"Pair {number} of {len(PROMPTS)}", exact=True)).to_be_visible()
    ready(page)


def ready(page: Page) -> None:
    """Wait until the page answers to keys."""
    expect(page.locator("fieldset.current")).to_have_count(1)


def answer(page: Page, place: Path, sources: str, way: int) -> dict[str, str]:
    """Answer three questions for sources ("a", "b" or "t") by keys, and return the vote that should come."""
    pair = open_study(place / "study").by_key[pair_of(page)]
    sides = {"t": "tie"} | {source_at(pair, side): side for side in SIDES}
    for source in sources:
        page.keyboard.press(KEYS[sides[source]][way])
    winners = ("tie" if source == "t" else source for source in sources)
    return {"pair": pair.key, **dict(zip(QUESTIONS, winners, strict=True))}


def test_a_judging_by_keyboard_over_a_reload_and_a_killed_server(
    server: JudgingServer, visitors: NewVisitor, tmp_path: Path
) -> None:
    anna, ben = visitors(server), visitors(server)
    page, other = begin(anna, "Anna"), begin(ben, "Ben")
    expected = [answer(page, tmp_path, "abt", 0)]
    place_of(page, 2)
    of_ben = [answer(other, tmp_path, "bbb", 1)]
    place_of(other, 2)
    page.keyboard.press("1")  # one question only: nothing is stored
    page.reload()
    place_of(page, 2)
    assert page.locator(":checked").count() == 0
    expected.append(answer(page, tmp_path, "aab", 1))
    place_of(page, 3)
    skipped = pair_of(page)
    page.keyboard.press("s")
    expect(page.locator("[name=pair]")).not_to_have_value(skipped)
    ready(page)
    expected.append(answer(page, tmp_path, "ttb", 0))
    place_of(page, 4)
    with anna.outage(), ben.outage():
        server.kill()
        server.start()
        page.reload()
        place_of(page, 4)
        place_of(other, 2)  # what failed meanwhile is reported by now
    undone = answer(page, tmp_path, "bbb", 1)
    expect(page.get_by_text("which you skipped before")).to_be_visible()
    ready(page)
    page.keyboard.press("u")
    place_of(page, 4)
    assert pair_of(page) == undone["pair"]
    expected.append(answer(page, tmp_path, "aaa", 1))
    expect(page.get_by_text("which you skipped before")).to_be_visible()
    ready(page)
    assert pair_of(page) == skipped
    expected.append(answer(page, tmp_path, "bta", 0))
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    place_of(other, 2)
    of_ben.append(answer(other, tmp_path, "aba", 0))
    place_of(other, 3)
    for name, own in (("Anna", expected), ("Ben", of_ben)):
        found = [vote for vote in votes_of(tmp_path) if vote["judge"] == name]
        assert [{key: vote[key] for key in ("pair", *QUESTIONS)} for vote in found] == own
    study = open_study(tmp_path / "study")
    results = results_of(study, Votes(tmp_path / "study", study).current())
    counted = {tally.question: (tally.a, tally.b, tally.ties) for tally in results.tallies}
    assert counted == {"alignment": (4, 2, 1), "quality": (2, 3, 2), "preference": (3, 3, 1)}


def test_keys_answer_the_question_that_the_keyboard_is_at(
    server: JudgingServer, visitors: NewVisitor
) -> None:
    page = begin(visitors(server), "Anna")
    for _ in range(3):
        page.keyboard.press("Tab")
    quality = page.get_by_role("group", name="Which image has the better quality?")
    while not quality.locator(":focus").count():
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(quality.get_by_label("Right")).to_be_checked()
    assert page.locator(":checked").count() == 1


def test_a_judge_sees_nothing_of_the_sources(
    server: JudgingServer, visitors: NewVisitor, tmp_path: Path
) -> None:
    visitor = visitors(server)
    sent: list[str] = []
    visitor.page.on("response", lambda response: sent.append(f"{response.url} {response.all_headers()}"))
    page = begin(visitor, "Anna")
    boxes = []
    for number in range(1, len(PROMPTS) + 1):
        place_of(page, number)
        page.wait_for_load_state("networkidle")
        sent.append(page.content())
        images = page.locator(".sides img")
        boxes.append([images.nth(side).bounding_box() for side in (0, 1)])
        for _ in QUESTIONS:
            page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    for left, right in boxes:
        assert left and right and (left["width"], left["height"]) == (right["width"], right["height"])
    text = "\n".join(sent)
    study = open_study(tmp_path / "study")
    assert {pair.left for pair in study.pairs} <= {"a", "b"} and study.secret not in text
    for pair in study.pairs:
        for image in (pair.a, pair.b):
            assert image.sha256 not in text
    assert str(tmp_path) not in text and "seed" not in text.lower()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(server: JudgingServer, visitors: NewVisitor, scheme: str) -> None:
    visitor = visitors(server, color_scheme=scheme)
    found: list[str] = []

    def look() -> None:
        for width in (DESK, PHONE):
            visitor.resize(width)
            found.extend(visitor.violations())
            assert visitor.sideways() == 0

    page = visitor.visit("/")
    look()
    page.locator("#name").evaluate("field => { field.maxLength = 100; field.value = 'x'.repeat(90) }")
    with visitor.expecting(422):
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("alert")).to_be_visible()
        look()
    page.get_by_label("Your name").fill("Anna")
    page.get_by_role("button", name="Begin").click()
    place_of(page, 1)
    look()
    page.keyboard.press("1")
    look()
    page.locator("#votes").evaluate("form => { form.noValidate = true }")
    with visitor.expecting(422):
        page.get_by_role("button", name="Save and go on").click()
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.get_by_label("Left").first).to_be_checked()
        look()
    for number in range(1, len(PROMPTS) + 1):
        place_of(page, number)
        while page.locator("fieldset:not(:has(:checked))").count() > 1:
            page.keyboard.press("2")
        page.keyboard.press("3")
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    look()
    assert found == []
