"""A server with a token: a wrong one is refused, the right one opens the pages."""

from playwright.sync_api import expect
from support.browser import NewServer, NewVisitor


def test_the_token_opens_the_pages(make_server: NewServer, visitors: NewVisitor) -> None:
    visitor = visitors(make_server("--workers", "0", PLEINAIR_SERVE_TOKEN="a-secret-token"))
    page = visitor.visit("/runs")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert visitor.violations() == []
    page.get_by_label("Token").fill("another-token")
    with visitor.expecting(401):
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Token").fill("a-secret-token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
