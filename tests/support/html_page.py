"""HTML parser for tests of pages."""

from __future__ import annotations

import base64
from collections import defaultdict
from html.parser import HTMLParser

HARMLESS = set(
    "html head meta title style body header p h1 h2 h3 span dl div dt dd table thead tbody tr th td main "
    "article small a img figure figcaption svg g rect path text ul li b em footer wbr br "
    "ins del details summary label input".split()
)
VOID = {"meta", "img", "rect", "path", "wbr", "br", "input"}


class Page(HTMLParser):
    """Parsed page: tags, addresses that it loads or links to, text, images; unbalanced tags are an error.

    `texts` are those of all elements of a class, `images` the files of all images with an alternative text.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.meta: dict[str, str] = {}
        self.text = ""
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.images: dict[str, list[bytes]] = defaultdict(list)
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {key: value or "" for key, value in attrs}
        followed = "href" if tag == "a" else ""  # by a click alone
        sources = ("src", "href", "srcset", "data", "action")
        self.loads += [values[key] for key in sources if key in values and key != followed]
        self.links += [values[followed]] if followed in values else []
        assert not any(key.startswith("on") or key == "style" for key in values)
        if tag == "meta" and "http-equiv" in values:
            self.meta[values["http-equiv"]] = values["content"]
        if tag == "img":
            self.images[values["alt"]].append(base64.b64decode(values["src"].partition(",")[2]))
        if tag not in VOID:
            self._open.append((tag, values.get("class", "")))
            self.texts[values.get("class", "")].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        for name in {name for _, name in self._open}:
            self.texts[name][-1] += data
