"""The list of runs in a browser: search, filter, download, deletion; one run as it happens."""

import re

from playwright.sync_api import expect
from support.browser import HOOPOE, Server, Visitor


def test_a_run_is_shown_as_it_happens(server: Server, visitor: Visitor) -> None:
    page = visitor.visit(f"/runs/{server.enqueue(HOOPOE, seed=21)}")
    expect(page.locator("article.attempt").first).to_be_visible()
    expect(page.locator(".ending").first).to_have_text(re.compile("accepted|stopped|unchecked"))
    expect(page.get_by_role("heading", level=1)).to_have_text(HOOPOE)


def test_runs_are_searched_filtered_downloaded_and_deleted(server: Server, visitor: Visitor) -> None:
    prompt = "a blue jay on a beach"
    server.ended(prompt)
    page = visitor.visit("/runs")
    page.get_by_role("searchbox").fill("jay beach")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("listitem")).to_have_count(1)
    page.get_by_label("Status").select_option("queued")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("No runs match.")).to_be_visible()
    page.go_back()
    page.get_by_role("checkbox", name=prompt).check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download selected").click()
    assert download.value.path().read_bytes().startswith(b"PK")
    page.get_by_role("button", name="Delete selected").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("1 run deleted")).to_be_visible()
    visitor.visit("/runs?search=jay")
    expect(page.get_by_text("No runs match.")).to_be_visible()
