"""A shelf of captioned pictures that stands in for a dense retriever: what it finds is written down."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from pleinair.tools.types import BadInput, Hit


class Shelf:
    """Answer every query with the same ranking of its pictures, whose scores fall from 0.9 by tenths."""

    def __init__(self, ranking: str, captions: dict[str, str] | None = None, **licenses: str) -> None:
        self.ranking, self.captions, self.licenses = ranking, captions or {}, licenses
        self.asked: list[int] = []

    def search(self, query: str, k: int) -> list[Hit]:
        if k < 1 or not query.strip():
            raise BadInput("a question that no shelf answers")
        self.asked.append(k)
        return [self.hit(id, 0.9 - place / 10) for place, id in enumerate(self.ranking)][:k]

    def open(self, id: str) -> Image.Image:
        return Image.new("RGB", (8, 8), (ord(id), 0, 0))

    def entries(self) -> Sequence[Hit]:
        return [self.hit(id, 0.0) for id in sorted({*self.ranking, *self.captions})]

    def hit(self, id: str, score: float) -> Hit:
        return Hit(
            id=id, score=score, caption=self.captions.get(id, ""), license=self.licenses.get(id, "unknown")
        )


def ids(hits: Sequence[Hit]) -> str:
    return "".join(hit.id for hit in hits)
