"""Files of the pages: two scripts of others, pinned; little of our own; nothing inline or from elsewhere."""

import io
import re
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from pleinair.app.server.site import STATIC, TEMPLATES, png
from pleinair.app.storyboard.html import TEMPLATES as SHARED

FOREIGN = {  # htmx 4.0.1 and its extension for Server-Sent Events, Zero-Clause BSD
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
    "htmx-LICENSE": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
}
OWN_LINES = 200  # of all our scripts
PAGES = sorted([*TEMPLATES.glob("*.html"), SHARED / "run.html"])
INLINE = re.compile(r"<style|<script(?![^>]*\ssrc=)|\sstyle\s*=|\son[a-z]+\s*=|javascript:", re.IGNORECASE)
LOADED = re.compile(r"""(?:src|href|action|url)\s*(?:=\s*["']?|\()\s*(?:https?:)?//""", re.IGNORECASE)


def test_scripts_of_others_are_those_that_were_reviewed() -> None:
    assert {name: sha256((STATIC / name).read_bytes()).hexdigest() for name in FOREIGN} == FOREIGN
    assert 'version="4.0.1"' in (STATIC / "htmx.min.js").read_text("utf-8")
    assert "Zero-Clause BSD" in (STATIC / "htmx-LICENSE").read_text("utf-8")
    kinds = {path.suffix for path in STATIC.iterdir() if path.name not in FOREIGN}
    assert kinds <= {".css", ".js", ".svg"}
    assert (
        not list(STATIC.glob("*.min.*")) or {path.name for path in STATIC.glob("*.min.*")} <= FOREIGN.keys()
    )


def test_our_own_scripts_are_short() -> None:
    own = [path for path in STATIC.glob("*.js") if path.name not in FOREIGN]
    lines = [line for path in own for line in path.read_text("utf-8").splitlines()]
    assert len(lines) <= OWN_LINES and max(map(len, lines), default=0) <= 160


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_has_nothing_inline_and_loads_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not INLINE.findall(text) and not LOADED.findall(text)


@pytest.mark.parametrize("file", sorted(STATIC.glob("*.css")), ids=lambda path: path.name)
def test_a_style_sheet_loads_nothing_from_elsewhere(file: Path) -> None:
    assert not re.search(r"@import|//", re.sub(r"/\*.*?\*/", "", file.read_text("utf-8"), flags=re.DOTALL))


@pytest.mark.parametrize(("form", "kind"), [("JPEG", "image/jpeg"), ("PNG", "image/png")])
def test_an_image_is_served_as_what_it_is(form: str, kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, form)
    assert png(file.getvalue()).media_type == kind
