"""Put retrievers together from plain words, so that a configuration can name any of the family.

Dense finds by the encoder's vectors, lexical by the captions' words, hybrid by both fused, and "both" by two
encoders in turn, as ImageRAG's re-ranking wants them. Licence and likeness are looked at before the order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pleinair.tools.retrieval.filters import AtLeast, Distinct, Licensed
from pleinair.tools.retrieval.lexical import CaptionOrder, Lexical
from pleinair.tools.retrieval.rerank import Both
from pleinair.tools.types import BadInput, Hit, Retriever, Value

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors


K = 60  # the paper's constant
DEPTH = 100  # ranks of either list that count


class Hybrid:
    """Answer with the pictures that two retrievers of one library rank high; implements `Retriever`.

    A hit's score is the sum of 1 / (60 + rank) over the lists it is in, ranks from 1: 2/61 where both put it
    first, 1/61 where one does and the other has not found it.
    """

    def __init__(self, first: Retriever, second: Retriever) -> None:
        self._first, self._second = first, second

    def search(self, query: str, k: int) -> list[Hit]:
        """Find up to `k` pictures, best first; of equals the first retriever's come first."""
        deep = max(k, DEPTH)
        return fuse([one.search(query, deep) for one in (self._first, self._second)])[:k]

    def open(self, id: str) -> Image:
        """Open a picture; the library is the same for both."""
        return self._first.open(id)

    def entries(self) -> Sequence[Hit]:
        """List the pictures of the library."""
        return self._first.entries()


def fuse(found: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Add up 1 / (60 + rank) over the lists for each picture, and order by the sums."""
    hits: dict[str, Hit] = {}
    sums: dict[str, float] = defaultdict(float)
    for ranked in found:
        for rank, hit in enumerate(ranked, start=1):
            hits.setdefault(hit.id, hit)
            sums[hit.id] += 1 / (K + rank)
    fused = [hit.model_copy(update={"score": sums[id]}) for id, hit in hits.items()]
    return sorted(fused, key=lambda hit: -hit.score)


class RetrievalOptions(Value):
    """Say which pictures of a library are found and in which order.

    The threshold is a cosine similarity. "dense" keeps weaker hits in the trace, but they are never selected;
    "hybrid" fuses none of them. The scores of the other methods are no cosines of one encoder, so those
    abstain only where nothing is found.
    """

    method: Literal["dense", "lexical", "hybrid", "both"] = "dense"
    rerank: Literal["none", "bm25"] = "none"  # by the captions of the best hits
    licenses: tuple[str, ...] = ()  # those allowed; all where empty
    deduplicate: float = Field(default=0.995, ge=0, le=1)  # cosine over which two are one; 0 keeps copies
    threshold: float = Field(default=0.0, ge=-1, le=1)


def compose(
    options: RetrievalOptions,
    dense: Retriever,
    vector: Callable[[str], Vectors],
    second: Retriever | None = None,
) -> Retriever:
    """Compose a retriever of one library.

    Args:
        options: what is wanted.
        dense: finds by vectors; its scores are cosines.
        vector: gives a picture's embedding, of length 1, by its id.
        second: another encoder's dense retriever, for the method "both".

    Raises:
        BadInput: the method "both" without a second retriever.
    """
    if options.method == "both":
        if second is None:
            raise BadInput("retrieval.method 'both' wants a second encoder, got none.")
        first, other = (_narrowed(one, options, vector) for one in (dense, second))
        found: Retriever = Both(first, other)
    else:
        found = _narrowed(_by(options, dense), options, vector)
    return CaptionOrder(found) if options.rerank == "bm25" else found


def threshold_of(options: RetrievalOptions) -> float:
    """Give the score under which a look-up of the composed retriever abstains: none but for "dense"."""
    return options.threshold if options.method == "dense" else -1.0


def _by(options: RetrievalOptions, dense: Retriever) -> Retriever:
    if options.method == "dense":
        return dense
    lexical = Lexical(dense)
    return lexical if options.method == "lexical" else Hybrid(AtLeast(dense, options.threshold), lexical)


def _narrowed(found: Retriever, options: RetrievalOptions, vector: Callable[[str], Vectors]) -> Retriever:
    allowed = Licensed(found, options.licenses) if options.licenses else found
    return Distinct(allowed, vector, options.deduplicate) if options.deduplicate else allowed
