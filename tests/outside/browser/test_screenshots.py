"""Screenshots of every page for a person to look at, in $PLEINAIR_SCREENSHOTS or out/screenshots."""

import os
from pathlib import Path

import pytest
from PIL import Image
from support.browser import DESK, FAULTS, PAGES, PHONE, TABLET, NewVisitor, Server, show
from support.source_tree import ROOT

LOADED = """() => Promise.all([...document.images].map(image => {
  image.loading = "eager";
  return image.complete || new Promise(done => image.onload = image.onerror = done)}))"""
FOLDER = Path(os.environ.get("PLEINAIR_SCREENSHOTS") or ROOT / "out" / "screenshots")


@pytest.mark.parametrize("name", [*PAGES, *FAULTS])
def test_screenshots_are_written(server: Server, visitors: NewVisitor, name: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        visitor = visitors(server, color_scheme=scheme, reduced_motion="reduce")
        page = show(visitor, server, name)
        for width in (DESK, TABLET, PHONE):
            visitor.resize(width)
            path = FOLDER / f"{name}-{width}-{scheme}.png"
            page.evaluate(LOADED)
            page.screenshot(path=path, full_page=True)
            with Image.open(path) as image:
                assert image.width == width
