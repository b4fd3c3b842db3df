"""Score images against texts by plain cosines: Cross-modal RAG's dense stage without its adaptor.

`IndexScorer` reads the vectors of an index, `SearchScorer` uses any retriever's scores. Captions are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pleinair.tools.locks import Once
from pleinair.tools.types import Encoder, Retriever, Scorer

if TYPE_CHECKING:
    from pleinair.tools.types import Cosines, Vectors

_UNSCORED = -1.0  # of an image that the index or the search does not have


class IndexScorer:
    """Scorer by the vectors of an index and its encoder; an image that is not indexed scores -1."""

    def __init__(self, vector: Callable[[str], Vectors], encoder: Encoder) -> None:
        """Store `vector`, which returns an image's by id or raises `KeyError`, and the texts' encoder."""
        self._vector, self._encoder = vector, encoder

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines:
        """Return the cosine of every image to every text, [images, texts]."""
        import numpy as np

        rows, vectors = [], []
        for row, id in enumerate(ids):
            with suppress(KeyError):  # a file that cannot be read, in the library but not in its index
                vectors.append(self._vector(id))
                rows.append(row)
        cosines = np.full((len(ids), len(texts)), _UNSCORED, dtype=np.float32)
        if rows:
            cosines[rows] = np.stack(vectors) @ self._encoder.encode_text(texts).T
        return cosines


class SearchScorer:
    """Scorer by a retriever's own scores; an image that its search omits, such as a copy, scores -1."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines:
        """Return the score of every image for every text, [images, texts]."""
        import numpy as np

        most = max(len(self._retriever.entries()), 1)
        scores = [{hit.id: hit.score for hit in self._retriever.search(text, most)} for text in texts]
        rows = [[of_text.get(id, _UNSCORED) for of_text in scores] for id in ids]
        return np.array(rows, dtype=np.float32).reshape(len(ids), len(texts))


class LazyScorer:
    """Scorer that is opened when it is first used."""

    def __init__(self, open: Callable[[], Scorer]) -> None:
        self.open = Once(open)

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines:
        """Return the scores of the opened scorer."""
        return self.open().score(texts, ids)
