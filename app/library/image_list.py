"""Images of a library by pages, filtered and looked up in its catalogue; no file of the library is read."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from pleinair.tools.retrieval.catalogue import Page
from pleinair.tools.retrieval.item import Item, id_key
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.licenses import Licenses
from pleinair.tools.types import NotFound

MAX_WORDS = 200  # characters of a filter


class ImageList:
    """Images of a library with their captions and licenses, as its catalogue has them."""

    def __init__(self, library: Library) -> None:
        """Open the list of a library; one that is not indexed gets a temporary catalogue."""
        self.library = library
        self._catalogue = library.as_catalogue()

    def __len__(self) -> int:
        return self._catalogue.count

    def get(self, id: str) -> Item:
        """Return an image by its id; raise `NotFound` for one that is not in the library."""
        try:
            return self.library.items[id]
        except KeyError:
            remedy = "It may have been moved or deleted; `pleinair index` brings the library up to date."
            raise NotFound(f"No image {id[:200]!r} in the library.", remedy) from None

    def page(self, words: str, licenses: Licenses, first: int, count: int) -> Page:
        """Return a part of the images that pass a filter, as `Catalogue.page` does."""
        return self._catalogue.page(words[:MAX_WORDS], licenses, first, count)

    @property
    def counts(self) -> Mapping[Licenses, int]:
        """Return the number of images by what is known of their licenses."""
        facts = self._catalogue.facts
        return {"any": len(self), "known": facts["known"], "free": facts["free"]}

    @property
    def captions(self) -> int:
        """Return the number of images with a caption."""
        return int(self._catalogue.facts["captions"])

    def by_key(self, key: str) -> Item | None:
        """Return the image that has a key, None for any other text."""
        item = self.by_hit(key[:32])
        return item if item and self.key(item) == key else None

    def by_hit(self, key: str) -> Item | None:
        """Return the image whose id has a key by `id_key`, None for any other text."""
        return self._catalogue.by_key(key)

    def key(self, item: Item) -> str:
        """Return the name of an image's content in addresses: of its id, then of its file, size and time."""
        path = self.library.location(item.id)
        content = f"{path}\n{item.size}\n{item.mtime_ns}".encode("utf-8", "surrogateescape")
        return id_key(item.id) + sha256(content).hexdigest()[:32]
