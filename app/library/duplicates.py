"""Groups of images that are the same: equal files, and near copies as retrieval leaves them out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from pleinair.app.libraries import OnProgress
from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval.filters import CLOSE, Images
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import Value

if TYPE_CHECKING:
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.library import Library

NEIGHBOURS = 16  # of each image that are compared
FILE = "duplicates.json"  # in the folder of the index


class Copy(Value):
    """Image of a group."""

    id: str
    size: int  # bytes
    sha256: str


class Group(Value):
    """Images that are the same; nothing is deleted."""

    kind: Literal["exact", "near"]  # equal files, or at least one that is rescaled, recompressed or cropped
    copies: tuple[Copy, ...]  # the largest file first


class Duplicates(Value):
    """Groups of an index."""

    rows: str  # checksum of the index that was searched
    images: int
    groups: tuple[Group, ...]


def find_duplicates(library: Library, index: Index, on_progress: OnProgress = no_callback) -> Duplicates:
    """Group the images of an index that are the same; `on_progress` may raise to stop.

    Equal files are all found. Near copies are looked for among each image's `NEIGHBOURS` nearest ones with a
    cosine of `CLOSE` or more, so of more copies some may be in groups of their own.
    """
    groups = _Groups(index.ids)
    first: dict[str, str] = {}
    for id in index.ids:
        groups.join(id, first.setdefault(index.sha256(id), id))
    images = Images(library.picture)
    done = 0
    for block in index.nearest(NEIGHBOURS):
        for neighbours in block:
            id = index.ids[done]
            for other, cosine in neighbours:
                if cosine >= CLOSE and not groups.are_joined(id, other):
                    if images.near_copies(library.items[id].hit(), library.items[other].hit()):
                        groups.join(id, other)
            done += 1
            on_progress(done, len(index))
    result = [_group(ids, library, index) for ids in groups.several()]
    result.sort(key=lambda group: (group.kind != "exact", -len(group.copies), group.copies[0].id))
    return Duplicates(rows=index.manifest.rows, images=len(index), groups=tuple(result))


class _Groups:
    """Sets of ids that are joined (a forest of trees, whose roots stand for them)."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._parent = {id: id for id in ids}

    def root(self, id: str) -> str:
        while (parent := self._parent[id]) != id:
            self._parent[id] = self._parent[parent]
            id = parent
        return id

    def join(self, first: str, second: str) -> None:
        self._parent[self.root(first)] = self.root(second)

    def are_joined(self, first: str, second: str) -> bool:
        return self.root(first) == self.root(second)

    def several(self) -> list[list[str]]:
        groups = defaultdict(list)
        for id in self._parent:
            groups[self.root(id)].append(id)
        return [ids for ids in groups.values() if len(ids) > 1]


def _group(ids: list[str], library: Library, index: Index) -> Group:
    copies = [Copy(id=id, size=library.items[id].size, sha256=index.sha256(id)) for id in ids]
    copies.sort(key=lambda copy: (-copy.size, copy.id))
    is_exact = len({copy.sha256 for copy in copies}) == 1
    return Group(kind="exact" if is_exact else "near", copies=tuple(copies))


def save_duplicates(folder: Path, duplicates: Duplicates) -> None:
    """Write the groups beside their index."""
    write_whole(folder / FILE, duplicates.model_dump_json().encode())


def stored_duplicates(folder: Path) -> Duplicates | None:
    """Return the groups that were found last, also of an earlier index; None if there are none to read."""
    try:
        return Duplicates.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return None
