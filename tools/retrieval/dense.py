"""Retriever of a library's images by the vectors of an encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.realrag import training_of
from pleinair.tools.retrieval.conditions import Conditions, select
from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.retrieval.index import Index, require_encoder
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import REBUILD
from pleinair.tools.retrieval.text_cache import TextVectors
from pleinair.tools.retrieve import check_query
from pleinair.tools.types import BadInput, Encoder, Hit

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors


class IndexRetriever:
    """Retriever of a library's images by the cosines of an encoder's vectors; copies are all found.

    Raise `BadInput` if the index is another encoder's or the library has changed since.
    """

    def __init__(
        self, library: Library, index: Index, encoder: Encoder, text_cache: Path | None = None
    ) -> None:
        """Store a library with its index and their encoder, and a file for the vectors of texts."""
        require_encoder(index.manifest, encoder, "The index")
        if index.is_stale(library):
            raise BadInput(f"The library {library.title} has changed since it was indexed.", REBUILD)
        self._library, self.index, self.encoder = library, index, encoder
        self._texts = TextVectors(encoder, text_cache)
        self.training = training_of(encoder)
        self.selection: Selection | None = None

    def among(self, conditions: Conditions) -> IndexRetriever:
        """Return a retriever of the images that meet conditions; it still lists and opens all."""
        other = copy(self)
        other.selection = select(self.index.catalogue, conditions)
        return other

    def search(self, query: str, k: int) -> list[Hit]:
        """Search for up to `k` images, best first; raise `BadInput` for `k` under 1 or a blank query."""
        return self.search_many([query], k)[0]

    def search_many(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Search for each of several texts at once; raise as `search`."""
        return self._hits(self._embed(queries, k), k)

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search near a text and far from an image, as `ContrastRetriever` does; raise as `search`."""
        return self._hits(self._embed([query], k) - weight * self.encoder.encode_images([away]), k)[0]

    def search_image(self, image: Image, k: int) -> list[Hit]:
        """Search for up to `k` images like another one; scores are cosines between images."""
        return self._hits(self.encoder.encode_images([image]), k)[0]

    def search_like(self, id: str, k: int) -> list[Hit]:
        """Search for up to `k` other images like an indexed one; raise `KeyError` for one that is not."""
        hits = self._hits(self.vector(id)[None], k + 1)[0]
        return [hit for hit in hits if hit.id != id][:k]

    def _embed(self, queries: Sequence[str], k: int) -> Vectors:
        for query in queries:
            check_query(query, k)
        return self.embed(queries)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts, float32 [n, dim]; those of earlier texts are cached."""
        return self._texts.of(texts)

    def _hits(self, vectors: Vectors, k: int) -> list[list[Hit]]:
        items = self._library.items
        return [
            [items[id].hit(score, "cosine") for id, score in pairs]
            for pairs in self.index.search(vectors, k, self.selection)
        ]

    def open(self, id: str) -> Image:
        """Read an image; raise `BadPicture` if its content is no longer the one that was indexed."""
        item = self._library.item(id)
        if not self._library.is_current(item):
            data = self._library.read(item)
            if hashlib.sha256(data).hexdigest() != self.index.sha256(id):
                raise BadPicture(f"`{id}` has changed since it was indexed.")
        return self._library.picture(id)

    def vector(self, id: str) -> Vectors:
        """Return the vector of an indexed image, [dim]; raise `KeyError` for any other."""
        return self.index.vector(id)

    def entries(self) -> Sequence[Hit]:
        """List every indexed image in the library's order, with score 0."""
        return self._entries

    @cached_property
    def _entries(self) -> Sequence[Hit]:
        if self.index.describes(self._library):
            return self.index.entries
        return [self._library.items[id].hit() for id in self.index.ids]
