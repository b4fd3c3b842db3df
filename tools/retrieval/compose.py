"""Put retrievers together from plain words, so that a configuration can name any of the family.

Dense finds by the encoder's vectors, lexical by the captions' words, hybrid by both fused, and "both" by two
encoders in turn, as ImageRAG's re-ranking wants them. Licence and likeness are looked at before the order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pleinair.tools.retrieval.filters import AtLeast, Distinct, Licensed
from pleinair.tools.retrieval.hybrid import Hybrid
from pleinair.tools.retrieval.lexical import CaptionOrder, Lexical
from pleinair.tools.retrieval.rerank import Both
from pleinair.tools.types import BadInput, Retriever, Value

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors


class RetrievalOptions(Value):
    """Say which pictures of a library are found and in which order.

    The floor is a cosine similarity. "dense" keeps weaker hits on the record, where the reader of a look-up
    passes them over; "hybrid" fuses none of them; the others' scores are no cosines of one encoder, and they
    abstain only where nothing is found.
    """

    method: Literal["dense", "lexical", "hybrid", "both"] = "dense"
    rerank: Literal["none", "bm25"] = "none"  # by the captions of the best hits
    licenses: tuple[str, ...] = ()  # those allowed; all where empty
    deduplicate: float = Field(default=0.995, ge=0, le=1)  # cosine over which two are one; 0 keeps copies
    floor: float = Field(default=0.0, ge=-1, le=1)


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


def floor_of(options: RetrievalOptions) -> float:
    """Give the score under which a look-up of the composed retriever abstains: none but for "dense"."""
    return options.floor if options.method == "dense" else -1.0


def _by(options: RetrievalOptions, dense: Retriever) -> Retriever:
    if options.method == "dense":
        return dense
    lexical = Lexical(dense)
    return lexical if options.method == "lexical" else Hybrid(AtLeast(dense, options.floor), lexical)


def _narrowed(found: Retriever, options: RetrievalOptions, vector: Callable[[str], Vectors]) -> Retriever:
    allowed = Licensed(found, options.licenses) if options.licenses else found
    return Distinct(allowed, vector, options.deduplicate) if options.deduplicate else allowed
