"""Accessibility of every page: axe-core, narrow windows, large text, little motion, and its weight."""

import pytest
from playwright.sync_api import Page, Request
from support.browser import DESK, PAGES, PHONE, Server, Visitor

MOST = 150_000  # bytes of a page without its images
LIGHT = 20_000  # which htmx alone has
pytestmark = pytest.mark.parametrize("name", PAGES)


def show(visitor: Visitor, server: Server, name: str) -> Page:
    """Open a page."""
    with visitor.expecting(*([404] if name == "missing" else [])):
        return visitor.visit(PAGES[name](server))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(server: Server, visitor: Visitor, name: str, scheme: str) -> None:
    visitor.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    show(visitor, server, name)
    found = []
    for width in (DESK, PHONE):
        visitor.resize(width)
        found += visitor.violations()
    assert found == []


def test_a_narrow_window_needs_no_sideways_scrolling(server: Server, visitor: Visitor, name: str) -> None:
    visitor.resize(PHONE)
    page = show(visitor, server, name)
    assert visitor.sideways() == 0
    visitor.resize(2 * PHONE)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert visitor.sideways() == 0


def test_a_page_is_light(server: Server, visitor: Visitor, name: str) -> None:
    loaded: list[Request] = []
    visitor.page.on("request", lambda request: loaded.append(request))
    show(visitor, server, name)
    parts = [request for request in loaded if request.resource_type in ("document", "stylesheet", "script")]
    sizes = {request.url: request.sizes()["responseBodySize"] for request in parts}
    assert LIGHT < sum(sizes.values()) < MOST, sizes
