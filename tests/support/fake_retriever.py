"""A retriever of captioned images with a fixed ranking, which stands in for dense retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from support.colour_encoder import ColourEncoder

from pleinair.tools.retrieval.compose import Corpus, RetrievalOptions
from pleinair.tools.types import BadInput, Hit

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.types import Encoder, Vectors


class FakeRetriever:
    """Retriever of one ranking with scores 0.9, 0.8 …; `angles` are its vectors, in degrees."""

    def __init__(
        self,
        ranking: str,
        captions: dict[str, str] | None = None,
        angles: dict[str, float] | None = None,
        **licenses: str,
    ) -> None:
        self.ranking, self.captions, self.licenses = ranking, captions or {}, licenses
        self.angles = angles or {}
        self.encoder: Encoder = ColourEncoder()
        self.sizes: list[int] = []

    def search(self, query: str, k: int) -> list[Hit]:
        if k < 1 or not query.strip():
            raise BadInput("refused by the fake retriever")
        self.sizes.append(k)
        return [self.hit(id, 0.9 - place / 10) for place, id in enumerate(self.ranking)][:k]

    def open(self, id: str) -> Image.Image:
        return Image.new("RGB", (8, 8), (ord(id), 0, 0))

    def entries(self) -> Sequence[Hit]:
        return [self.hit(id, 0.0) for id in sorted({*self.ranking, *self.captions})]

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self.encoder.encode_text(texts)

    def vector(self, id: str) -> Vectors:
        return unit(self.angles[id])

    def hit(self, id: str, score: float) -> Hit:
        return Hit(
            id=id, score=score, caption=self.captions.get(id, ""), license=self.licenses.get(id, "unknown")
        )


def unit(degrees: float) -> Vectors:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def ids(hits: Sequence[Hit]) -> str:
    return "".join(hit.id for hit in hits)


def corpus(
    options: RetrievalOptions, dense: FakeRetriever | None = None, second: FakeRetriever | None = None
) -> Corpus:
    """Build a corpus of open retrievers; without `dense` nothing may ask for vectors or files."""

    def library() -> Library:
        raise AssertionError("the library was opened")

    def fake() -> FakeRetriever:
        assert dense, "the index was opened"
        return dense

    return Corpus(options, library, fake, (lambda: second) if second else None)
