"""Approval in a browser: a veto, an image of one's own; after a reload, and after the server was killed."""

from __future__ import annotations

import io
import re

from PIL import Image
from playwright.sync_api import FilePayload, Page, expect
from support.browser import HOOPOE, NewServer, NewVisitor, Server, Visitor

DONE = re.compile("accepted|stopped|unchecked|refused")


def veto_the_first(page: Page) -> None:
    page.get_by_role("checkbox", name="Never again").first.check()
    page.get_by_role("radio", name="Use").nth(1).check()
    page.get_by_role("button", name="Continue").click()


def test_a_veto_after_a_reload(server: Server, visitor: Visitor) -> None:
    page = visitor.visit(server.chat(HOOPOE, approve="references", seed="11"))
    expect(page.locator(".activity")).to_have_text("Waiting for your approval")
    page.reload()
    first = page.locator(".hit img").first.get_attribute("src")
    assert first
    veto_the_first(page)
    expect(page.locator("article .ending")).to_have_text(DONE)
    page.get_by_role("link", name="trace").click()
    used = page.locator(".reference")
    expect(used.first).to_be_visible()
    assert first.rpartition("/")[2] not in used.first.inner_html()


def test_an_image_of_ones_own_replaces_a_reference(server: Server, visitor: Visitor) -> None:
    page = visitor.visit(server.chat(HOOPOE, approve="references", seed="12"))
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    mine = FilePayload(name="mine.png", mimeType="image/png", buffer=file.getvalue())
    page.get_by_label("Use an image of your own").set_input_files([mine])
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("article .ending")).to_have_text(DONE)
    page.get_by_role("link", name="trace").click()
    expect(page.locator(".reference").first).to_be_visible()
    assert "pocket" not in page.locator(".reference").first.inner_text()


def test_an_answer_after_the_server_was_killed(make_server: NewServer, visitors: NewVisitor) -> None:
    server = make_server()
    visitor = visitors(server)
    page = visitor.visit(server.chat(HOOPOE, approve="references"))
    with visitor.outage():
        server.kill()
        server.start()
        veto_the_first(page)
        expect(page.locator("article .ending")).to_have_text(DONE)
