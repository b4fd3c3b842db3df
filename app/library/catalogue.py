"""Contents of a library in memory: listed, filtered and looked up without reading a file."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.licenses import UNKNOWN, Licenses, admits, is_free
from pleinair.tools.types import NotFound

MAX_WORDS = 200  # characters of a filter


class Shown(NamedTuple):
    """Part of a list, and how many entries the whole list has."""

    items: list[Item]
    total: int


class Catalogue:
    """Images of a library with their captions and licenses, as they were when it was opened."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._items = list(library.items.values())
        self._texts = [f"{item.caption}\n{item.id}".casefold() for item in self._items]
        self._free = {name: is_free(name) for name in {item.license for item in self._items}}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, id: str) -> Item:
        """Return an image by its id; raise `NotFound` for one that is not in the library."""
        try:
            return self.library.items[id]
        except KeyError:
            remedy = "It may have been moved or deleted; `Read the folders again` brings the page up to date."
            raise NotFound(f"No image {id[:200]!r} in the library.", remedy) from None

    def page(self, words: str, licenses: Licenses, first: int, count: int) -> Shown:
        """Return `count` images from the one with the number `first`, 0 for the first, that pass a filter.

        Args:
            words: all of which the caption or the file name must have, in any case.
            licenses: "known" leaves out images without a license, "free" all whose license is not known to
                permit any use.
            first: number of images to leave out at the beginning.
            count: the most images to return.
        """
        parts = words[:MAX_WORDS].casefold().split()
        if not parts and licenses == "any":
            return Shown(self._items[first : first + count], len(self._items))
        passed = [
            item
            for item, text in zip(self._items, self._texts, strict=True)
            if self._passes(item, licenses) and all(word in text for word in parts)
        ]
        return Shown(passed[first : first + count], len(passed))

    def _passes(self, item: Item, licenses: Licenses) -> bool:
        return admits(() if licenses == "any" else (licenses,), item.license)

    def is_free(self, item: Item) -> bool:
        """Return whether an image's license is known to permit any use."""
        return self._free[item.license]

    @cached_property
    def counts(self) -> dict[Licenses, int]:
        """Return the number of images by what is known of their licenses."""
        names = Counter(item.license for item in self._items)
        return {
            "any": len(self._items),
            "known": len(self._items) - names[UNKNOWN],
            "free": sum(count for name, count in names.items() if self._free[name]),
        }

    @cached_property
    def captions(self) -> int:
        """Return the number of images with a caption."""
        return sum(bool(item.caption) for item in self._items)

    def by_key(self, key: str) -> Item | None:
        """Return the image that has a key, None for any other text."""
        return self._keys.get(key)

    def by_hit(self, key: str) -> Item | None:
        """Return the image whose id has a key by `id_key`, None for any other text."""
        return self._hits.get(key)

    def key(self, item: Item) -> str:
        """Return the name of an image's content in addresses: a SHA-256 of its file, size and time."""
        path = self.library.location(item.id)
        return sha256(f"{path}\n{item.size}\n{item.mtime_ns}".encode("utf-8", "surrogateescape")).hexdigest()

    @cached_property
    def _keys(self) -> dict[str, Item]:
        return {self.key(item): item for item in self._items}

    @cached_property
    def _hits(self) -> dict[str, Item]:
        return {id_key(item.id): item for item in self._items}


def id_key(id: str) -> str:
    """Return the name of an image's id in addresses."""
    return sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:32]
