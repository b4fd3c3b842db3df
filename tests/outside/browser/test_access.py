"""Accessibility of every page: axe-core, narrow windows, large text, little motion, and its weight."""

import re

import pytest
from playwright.sync_api import Request, expect
from support.browser import DESK, FAULTS, PAGES, PHONE, TWO, NewVisitor, Server, Visitor, show

MOST = 150_000  # bytes of a page without its images
LIGHT = 20_000  # which htmx alone has
EACH = pytest.mark.parametrize("name", [*PAGES, *FAULTS])


@EACH
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(server: Server, visitor: Visitor, name: str, scheme: str) -> None:
    visitor.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    show(visitor, server, name)
    found = []
    for width in (DESK, PHONE):
        visitor.resize(width)
        found += visitor.violations()
    assert found == []


@EACH
def test_a_narrow_window_needs_no_sideways_scrolling(server: Server, visitor: Visitor, name: str) -> None:
    visitor.resize(PHONE)
    page = show(visitor, server, name)
    assert visitor.sideways() == 0
    visitor.resize(2 * PHONE)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert visitor.sideways() == 0


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(server: Server, visitor: Visitor, name: str) -> None:
    loaded: list[Request] = []
    visitor.page.on("request", lambda request: loaded.append(request))
    show(visitor, server, name)
    parts = [request for request in loaded if request.resource_type in ("document", "stylesheet", "script")]
    sizes = {request.url: request.sizes()["responseBodySize"] for request in parts}
    assert LIGHT < sum(sizes.values()) < MOST, sizes


@pytest.mark.parametrize("name", FAULTS)
def test_a_form_that_comes_back_begins_at_its_fault(server: Server, visitor: Visitor, name: str) -> None:
    visitor.resize(PHONE)
    focused = show(visitor, server, name).locator(":focus")
    expect(focused).to_be_in_viewport()
    expect(focused).to_have_attribute("aria-invalid", "true")
    expect(focused).to_have_accessible_description(re.compile("."))


def test_pages_of_a_run_at_work_have_no_violation(slow_server: Server, visitors: NewVisitor) -> None:
    visitor = visitors(slow_server)
    page = visitor.visit("/threads/new")
    page.get_by_label("Prompt", exact=True).fill(f"{TWO} --steps 150")  # at work until it is accepted
    page.get_by_role("button", name="Send").click()
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    found = visitor.violations()
    page.get_by_role("link", name="trace").first.click()
    expect(stop).to_be_visible()
    for width in (DESK, PHONE):
        visitor.resize(width)
        found += visitor.violations()
        assert visitor.sideways() == 0
    expect(page.get_by_role("heading", name="Continue with this run")).to_have_count(0)
    page.get_by_role("button", name="Accept the image so far").click()
    expect(page.get_by_role("heading", name="Continue with this run")).to_be_visible()  # without a reload
    expect(stop).to_have_count(0)
    assert found == []
