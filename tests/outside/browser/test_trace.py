"""Trace of a run in a browser: messages, comparison by the keyboard, forks, exports."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from support.browser import PHONE, Server, Visitor

BIRDS = "a barn owl and a hoopoe"
ENDED = re.compile("accepted|stopped|unchecked")


@pytest.fixture(scope="module")
def run(server: Server) -> str:
    """Return a run with two attempts."""
    return server.ended(BIRDS)


def fork_and_wait(page: Page) -> None:
    page.get_by_role("button", name="Run the fork").click()
    expect(page.locator(".ending")).to_have_text(ENDED)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(server: Server, visitor: Visitor, run: str, scheme: str) -> None:
    visitor.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    addresses = (
        f"/runs/{run}",
        f"/compare?left={run}:0&right={run}:1",
        f"/runs/{run}/fork",
        f"/runs/{run}/calls/2",
    )
    found = {}
    for address in addresses:
        page = visitor.visit(address)
        for details in page.locator("summary").all():
            details.click()
        found[address] = visitor.violations()
        visitor.resize(PHONE)
        found[address] += visitor.violations()
        assert visitor.sideways() == 0, address
        visitor.resize(1400)
    assert found == dict.fromkeys(addresses, [])


def test_what_is_open_stays_open_while_the_run_goes_on(server: Server, visitor: Visitor) -> None:
    page = visitor.visit(f"/runs/{server.enqueue(BIRDS, seed=5)}")
    page.locator("#call-1 summary").click()
    page.locator("#settings-0 summary").click()
    expect(page.locator(".ending")).to_have_text(ENDED)
    expect(page.locator("#call-2")).to_be_visible()
    expect(page.locator("#call-1")).to_have_attribute("open", "")
    expect(page.locator("#settings-0")).to_have_attribute("open", "")
    expect(page.locator("#call-1").get_by_text("Break the prompt into the concepts")).to_be_visible()


def test_the_marks_of_the_ledger_can_be_hidden(visitor: Visitor, run: str) -> None:
    page = visitor.visit(f"/runs/{run}")
    mark = page.locator(".picture g").first
    expect(mark).to_be_visible()
    page.get_by_role("checkbox", name="Show where the ledger says").uncheck()
    expect(mark).to_be_hidden()


def test_two_attempts_are_compared_by_the_keyboard(visitor: Visitor, run: str) -> None:
    page = visitor.visit(f"/runs/{run}")
    page.locator("select[name=left]").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("same seed")).to_be_visible()
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("55")
    right = page.locator(".compare img").nth(1)
    assert "55%" in str(right.evaluate("image => getComputedStyle(image).clipPath"))
    box = right.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] - 20)
    page.mouse.down()
    page.mouse.up()
    expect(slider).to_have_value("25")


def test_without_scripts_the_images_are_side_by_side(
    visitors: Callable[..., Visitor], server: Server, run: str
) -> None:
    page = visitors(server, java_script_enabled=False).visit(f"/compare?left={run}:0&right={run}:1")
    first, second = (image.bounding_box() for image in page.locator(".compare img").all())
    assert first and second and first["x"] + first["width"] < second["x"]
    expect(page.get_by_role("slider")).to_be_hidden()


def test_a_fork_by_the_form_shows_its_parent(visitor: Visitor, run: str) -> None:
    page = visitor.visit(f"/runs/{run}")
    page.get_by_role("link", name="Fork from generate:1").click()
    page.get_by_label("Prompt of this image").fill("typed <b>words</b>")
    page.get_by_label("Seed").fill("x")
    with visitor.expecting(400):
        page.get_by_role("button", name="Run the fork").click()
        expect(page.get_by_role("alert")).to_contain_text("must be a whole number")
    expect(page.get_by_label("Prompt of this image")).to_have_value("typed <b>words</b>")
    page.get_by_label("Prompt of this image").fill(BIRDS)
    page.get_by_label("Seed").fill("9")
    page.get_by_role("radio", name="No reference").check()
    fork_and_wait(page)
    expect(page.get_by_text(f"Forked from {run} at generate:1")).to_be_visible()
    page.get_by_role("link", name="Compare with it").click()
    expect(page.get_by_role("figure").filter(has_text=run)).to_have_count(1)


def test_the_exports_are_downloads(visitor: Visitor, run: str) -> None:
    page = visitor.visit(f"/runs/{run}")
    for name, suffix in (
        ("Storyboard (HTML)", "html"),
        ("Storyboard (PNG)", "png"),
        ("Trace (JSON)", "json"),
    ):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        assert download.value.suggested_filename == f"{BIRDS.replace(' ', '-')}-{run}.{suffix}"
