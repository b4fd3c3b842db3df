"""Accessibility of every page: axe-core, narrow windows, large text, little motion, and its weight."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Request
from support.browser import DESK, PHONE, Server, Visitor

WREN = "a saverel wren in the snow"
MOST = 150_000  # bytes of a page without its images
Page = Callable[[Server], str]


def ended(server: Server) -> str:
    """Return the page of a run that has ended."""
    return f"/runs/{server.ended(WREN)}"


def waiting(server: Server) -> str:
    """Return the page of a run that waits for an approval."""
    return f"/runs/{server.waiting(WREN)}"


def at(path: str) -> Page:
    """Return a page whose address does not depend on a run."""
    return lambda server: path


PAGES: dict[str, Page] = {
    "run that has ended": ended,
    "run that waits": waiting,
    "runs": at("/runs"),
    "runs without a match": at("/runs?search=nothingatall"),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation(server: Server, visitor: Visitor, name: str, scheme: str) -> None:
    visitor.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    visitor.visit(PAGES[name](server))
    found = []
    for width in (DESK, PHONE):
        visitor.resize(width)
        found += visitor.violations()
    assert found == []


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_window_needs_no_sideways_scrolling(server: Server, visitor: Visitor, name: str) -> None:
    visitor.resize(PHONE)
    page = visitor.visit(PAGES[name](server))
    assert visitor.sideways() == 0
    visitor.resize(2 * PHONE)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert visitor.sideways() == 0


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(server: Server, visitor: Visitor, name: str) -> None:
    loaded: list[Request] = []
    visitor.page.on("request", lambda request: loaded.append(request))
    visitor.visit(PAGES[name](server))
    parts = [request for request in loaded if request.resource_type in ("document", "stylesheet", "script")]
    sizes = {request.url: request.sizes()["responseBodySize"] for request in parts}
    assert 20_000 < sum(sizes.values()) < MOST, sizes
