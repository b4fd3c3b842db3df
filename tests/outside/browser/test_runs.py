"""Pages of runs in a browser: a run as it happens, the list."""

import re

from playwright.sync_api import expect
from support.browser import Server, Visitor

WREN = "a saverel wren in the snow"
ENDED = re.compile("accepted|stopped|unchecked")


def test_a_run_is_shown_as_it_happens(server: Server, visitor: Visitor) -> None:
    page = visitor.visit(f"/runs/{server.enqueue(WREN)}")
    expect(page.locator("article.attempt").first).to_be_visible()
    expect(page.locator(".ending")).to_have_text(ENDED)
    expect(page.get_by_role("heading", level=1)).to_have_text(WREN)
    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_role("link", name=WREN).first).to_be_visible()
