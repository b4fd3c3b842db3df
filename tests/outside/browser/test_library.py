"""The library in a browser: search by words and by image, what nothing fits, what it lacks, an index."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, expect
from support.browser import HOOPOE, UNKNOWN, Server, Visitor


@pytest.fixture(autouse=True)
def indexed(server: Server) -> None:
    """Let a run index the library."""
    server.ended(HOOPOE)


def test_search_by_words_and_more_like_one(visitor: Visitor) -> None:
    page = visitor.visit("/library/search")
    page.get_by_role("searchbox").fill("a hoopoe")
    page.get_by_role("button", name="Search").first.click()
    expect(page.get_by_text(re.compile("at or over the threshold")).first).to_be_visible()
    page.get_by_role("link", name="More like this").first.click()
    expect(page.get_by_role("heading", name=re.compile("^Like "))).to_be_visible()
    page.get_by_role("button", name="Use in chat").first.click()
    newest = page.get_by_role("checkbox", name=re.compile("^Use @")).last  # of any other test's images
    expect(newest).to_be_checked()


def test_search_by_an_image(visitor: Visitor) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "pink").save(file, "PNG")
    page = visitor.visit("/library/search")
    mine = FilePayload(name="mine.png", mimeType="image/png", buffer=file.getvalue())
    page.get_by_label("Or images like this one").set_input_files([mine])
    page.get_by_role("button", name="Search").last.click()
    expect(page.get_by_role("heading", name="Like this image")).to_be_visible()
    expect(page.locator(".hits .hit").first).to_be_visible()


def test_nothing_fits(visitor: Visitor) -> None:
    page = visitor.visit(f"/library/search?words={UNKNOWN}")
    expect(page.get_by_text("Nothing fits.")).to_be_visible()


def test_a_folder_is_indexed_with_progress(server: Server, visitor: Visitor) -> None:
    folder = server.home / "photos"
    folder.mkdir(exist_ok=True)
    for angle in (0, 90, 180):
        Image.linear_gradient("L").rotate(angle).save(folder / f"{angle}.png")
    page = visitor.visit("/library/index")
    page.get_by_label("Folder on this machine").fill(str(folder / "none"))
    with visitor.expecting(400, 422):
        page.get_by_role("button", name="Index").click()
        expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Folder on this machine").fill(str(folder))
    page.get_by_role("button", name="Index").click()
    expect(page.get_by_text("3 images indexed")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)  # without a reload
    expect(page.get_by_role("status")).to_have_text("Done")


def test_what_the_library_lacks(visitor: Visitor) -> None:
    page = visitor.visit("/library")
    page.get_by_role("link", name="What it lacks").click()
    expect(page.get_by_role("heading", name="What your library lacks")).to_be_visible()
