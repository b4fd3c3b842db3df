"""A whole chat in a browser: prompt, images, options, versions, forks, undo; a reload, a killed server."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect
from support.browser import LONG, NewServer, NewVisitor, Server, Visitor

HOOPOE = "a hoopoe in the snow"
TWO = "a barn owl and a hoopoe"
DROP = """([data, type]) => {
  const items = new DataTransfer(), bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  items.items.add(new File([bytes], `${type}.png`, {type: "image/png"}));
  const
    kind = type === "drop" ? DragEvent : ClipboardEvent, of = {drop: "dataTransfer", paste: "clipboardData"};
  const event = new kind(type, {[of[type]]: items, bubbles: true, cancelable: true});
  document.getElementById("prompt").dispatchEvent(event)}"""


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    return file.getvalue()


def send(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Send").click()


def message(page: Page, prompt: str) -> Locator:
    return page.get_by_role("article", name=prompt, exact=True)


def ended(page: Page, prompt: str) -> Locator:
    """Wait until a message has its image, and return it."""
    shown = message(page, prompt)
    expect(shown.locator(".ending")).to_be_visible()
    expect(shown.locator(".look img")).to_be_visible()
    return shown


def press(scope: Page | Locator, name: str) -> None:
    scope.get_by_role("button", name=name, exact=True).first.click()


@pytest.fixture
def chat(visitor: Visitor) -> Page:
    """Open a new chat."""
    return visitor.visit("/threads/new")


@pytest.fixture
def long_chat(visitors: NewVisitor, slow_server: Server) -> Page:
    """Open a new chat on a server whose images take long."""
    return visitors(slow_server).visit("/threads/new")


def test_a_prompt_is_drawn_before_ones_eyes(long_chat: Page) -> None:
    send(long_chat, HOOPOE)
    article = message(long_chat, HOOPOE)
    expect(article.locator(".activity")).to_be_visible()
    expect(article.get_by_alt_text("The image in progress")).to_be_visible()
    expect(article.locator(".attempts img").first).to_be_visible()
    expect(long_chat.get_by_role("status").first).not_to_be_empty()
    ended(long_chat, HOOPOE)


def test_a_reload_in_the_middle_loses_nothing(long_chat: Page) -> None:
    send(long_chat, HOOPOE)
    long_chat.get_by_label("Prompt", exact=True).fill("typed meanwhile")
    expect(message(long_chat, HOOPOE).get_by_alt_text("The image in progress")).to_be_visible()
    long_chat.reload()
    ended(long_chat, HOOPOE)


def test_a_run_is_stopped(long_chat: Page) -> None:
    send(long_chat, HOOPOE)
    press(message(long_chat, HOOPOE), "Stop")
    expect(message(long_chat, HOOPOE).locator(".ending")).to_have_text("cancelled")


def test_an_image_is_accepted_early(long_chat: Page) -> None:
    send(long_chat, HOOPOE)
    press(message(long_chat, HOOPOE), "Accept the image so far")
    shown = ended(long_chat, HOOPOE)
    expect(shown.locator(".end")).to_contain_text(re.compile("accepted", re.IGNORECASE))


def test_images_by_button_drop_and_paste_are_reused_and_mentioned(chat: Page) -> None:
    files = [FilePayload(name="<b>green</b>.png", mimeType="image/png", buffer=png("green"))]
    chat.get_by_label("Add images").set_input_files(files)
    tray = chat.get_by_role("list", name="Reference images")
    expect(tray.get_by_role("listitem")).to_have_count(1)
    for number, (kind, colour) in enumerate((("drop", "red"), ("paste", "blue")), start=2):
        chat.wait_for_load_state()
        chat.evaluate(DROP, [base64.b64encode(png(colour)).decode(), kind])
        expect(tray.get_by_role("listitem")).to_have_count(number)
    chat.get_by_label("What @1 shows").fill("hoopoe")
    chat.get_by_label("Use @2").uncheck()
    press(chat, "Remove @3")
    expect(tray.get_by_role("listitem")).to_have_count(2)
    expect(chat.get_by_label("What @1 shows")).to_have_value("hoopoe")
    expect(chat.get_by_label("Use @2")).not_to_be_checked()
    send(chat, "a @1 in the snow")
    press(chat.get_by_role("article"), "Use as reference")
    expect(tray.get_by_role("listitem")).to_have_count(3)
    expect(tray.get_by_text("@4")).to_be_visible()


def test_options_and_an_estimate(visitor: Visitor, chat: Page) -> None:
    chat.get_by_label("Prompt", exact=True).fill(HOOPOE)
    chat.get_by_text("Options").click()
    seed = chat.get_by_role("textbox", name="Seed")
    seed.fill("not a number")
    with visitor.expecting(400):
        press(chat, "Estimate")
        expect(chat.get_by_role("alert")).to_be_visible()
    expect(seed).to_have_value("not a number")
    seed.fill("7")
    chat.get_by_label("Attempts", exact=True).fill("1")
    press(chat, "Estimate")
    expect(chat.get_by_label("Estimate", exact=True).first).to_be_visible()
    press(chat, "Send")
    expect(ended(chat, HOOPOE)).to_contain_text("seed 7")


def test_versions_forks_and_undo(chat: Page) -> None:
    send(chat, HOOPOE)
    ended(chat, HOOPOE)
    press(chat, "Draw again")
    versions = chat.get_by_role("group", name="Versions").get_by_role("button")
    expect(versions).to_have_count(2)
    ended(chat, HOOPOE)
    versions.first.click()
    expect(versions.first).to_have_attribute("aria-pressed", "true")
    send(chat, TWO)
    ended(chat, TWO)
    thread = chat.url
    chat.get_by_role("button", name=re.compile(f"Edit .{TWO}")).click()
    expect(chat.get_by_label("Prompt", exact=True)).to_have_value(TWO)
    expect(chat.get_by_role("article")).to_have_count(1)
    assert chat.url.partition("#")[0] != thread.partition("#")[0]
    chat.goto(thread)
    press(chat, "Undo")
    expect(chat.get_by_role("article")).to_have_count(1)
    press(chat, "Redo")
    expect(chat.get_by_role("article")).to_have_count(2)
    expect(
        chat.get_by_role("complementary", name="Chats").get_by_role("link", name=HOOPOE).first
    ).to_be_visible()


def test_a_killed_server_that_starts_again_shows_the_end(
    visitors: NewVisitor, make_server: NewServer
) -> None:
    server = make_server(PLEINAIR_IMAGE__NUM_INFERENCE_STEPS=LONG)
    visitor = visitors(server)
    page = visitor.visit("/threads/new")
    send(page, HOOPOE)
    expect(message(page, HOOPOE).get_by_alt_text("The image in progress")).to_be_visible()
    page.get_by_label("Prompt", exact=True).fill("typed meanwhile")
    with visitor.outage():
        server.kill()
        server.start()
        ended(page, HOOPOE)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("typed meanwhile")


def test_another_window_follows_without_a_reload(server: Server, visitors: NewVisitor, chat: Page) -> None:
    chat.locator("#files").set_input_files(
        [FilePayload(name="a.png", mimeType="image/png", buffer=png("red"))]
    )
    expect(chat.get_by_text("@1", exact=True)).to_be_visible()
    other = visitors(server).page
    other.goto(chat.url)
    other.get_by_label("Prompt", exact=True).fill("not sent")
    expect(other.get_by_role("heading", name="New chat")).to_be_visible()
    press(chat, "Remove @1")
    send(chat, HOOPOE)
    expect(other.get_by_role("heading", name=HOOPOE, level=1)).to_be_visible()
    expect(other).to_have_title(f"{HOOPOE} · pleinair")
    expect(other.locator(".chats [aria-current]")).to_contain_text(HOOPOE)
    expect(other.get_by_text("What do you want to see?")).to_be_hidden()
    undo, redo = (other.get_by_role("button", name=name) for name in ("Undo", "Redo"))
    ended(chat, HOOPOE)
    expect(undo).to_be_enabled()
    press(chat, "Undo")
    expect(undo).to_be_disabled()
    expect(redo).to_be_enabled()
    expect(other.get_by_label("Prompt", exact=True)).to_have_value("not sent")
