"""Image file of a library with its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from pleinair.tools.retrieval.licenses import UNKNOWN
from pleinair.tools.types import Box, Hit

if TYPE_CHECKING:
    from pleinair.tools.types import ScoreKind


@dataclass(frozen=True, slots=True)
class Item:
    """Image file with what is known about it; `id` is its path in the library, with `/` between folders."""

    id: str
    size: int  # bytes
    mtime_ns: int
    caption: str = ""  # one a line where there are several
    license: str = UNKNOWN  # an SPDX identifier where there is one
    source: str = ""
    author: str = ""
    boxes: Mapping[str, Box] = field(default_factory=dict, hash=False)
    tags: tuple[str, ...] = ()
    captioned_by: str = ""  # name of the reader that supplied the caption
    caption_model: str = ""  # name of the MLLM that wrote the caption; "": none did
    place: str = ""  # inside a container, as `roots.root` has it; "": a file of its own

    @property
    def stamp(self) -> tuple[int, int]:
        """Return size and mtime; while both stay, the file is assumed to be unchanged."""
        return self.size, self.mtime_ns

    def hit(self, score: float = 0.0, score_kind: ScoreKind = "") -> Hit:
        """Return the image as a hit with its metadata."""
        names = ("id", "caption", "caption_model", "license", "source", "author")
        facts = {name: getattr(self, name) for name in names}
        return Hit(score=score, score_kind=score_kind, boxes=dict(self.boxes), **facts)


def id_key(id: str) -> str:
    """Return the name of an image's id in addresses, 32 hexadecimal digits."""
    return sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:32]
