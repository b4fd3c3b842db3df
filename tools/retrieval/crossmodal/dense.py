"""Score pictures against texts by plain cosines: Cross-modal RAG's dense stage without its adaptor.

`IndexScorer` reads the vectors that an index holds; `SearchScorer` asks any retriever, and knows nothing of
the pictures that its search leaves out. Not covered: scores by captions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pleinair.tools.locks import Once
from pleinair.tools.types import Encoder, Retriever, Scorer

if TYPE_CHECKING:
    from pleinair.tools.types import Cosines, Vectors

UNSEEN = -1.0  # of a picture that a search did not give


class IndexScorer:
    """Score by the encoder that made the index; implements `Scorer`."""

    def __init__(self, vector: Callable[[str], Vectors], encoder: Encoder) -> None:
        """Take what gives a picture's vector by its id, and the encoder of the texts."""
        self._vector, self._encoder = vector, encoder

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines:
        """Give the cosine of every picture to every text, [pictures, texts]."""
        import numpy as np

        if not ids:
            return np.zeros((0, len(texts)), dtype=np.float32)
        cosines: Cosines = np.stack([self._vector(id) for id in ids]) @ self._encoder.encode_text(texts).T
        return cosines


class SearchScorer:
    """Score by a retriever's own scores; implements `Scorer`.

    A picture that its search leaves out, as a near-duplicate for example, gets `UNSEEN`.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines:
        """Give the score of every picture for every text, [pictures, texts]."""
        import numpy as np

        most = max(len(self._retriever.entries()), 1)
        found = [{hit.id: hit.score for hit in self._retriever.search(text, most)} for text in texts]
        rows = [[one.get(id, UNSEEN) for one in found] for id in ids]
        return np.array(rows, dtype=np.float32).reshape(len(ids), len(texts))


class LazyScorer:
    """Open a scorer at its first use; implements `Scorer`."""

    def __init__(self, open: Callable[[], Scorer]) -> None:
        self._opened = Once(open)

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines:
        """Give what the scorer gives."""
        return self._opened().score(texts, ids)
