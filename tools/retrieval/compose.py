"""Retrieval methods by name, and their composition with filters and re-ranking as the settings say.

"dense" ranks by an encoder's vectors, "lexical" by the words of captions, "hybrid" fuses both, and "both"
alternates between two encoders, as ImageRAG's re-ranking needs. A method is an entry point of the group
`pleinair.retriever`: a callable that takes a `Corpus`, and keyword arguments from `retrieval.arguments`, and
returns an object with `search`. Licenses and copies are filtered before hits are re-ranked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from operator import not_
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from pleinair.tools import registry
from pleinair.tools.arguments import checked
from pleinair.tools.locks import Once
from pleinair.tools.retrieval.filters import Filtered, Merged, Wrapper, by_license, distinct, readable
from pleinair.tools.retrieval.lexical import CaptionOrder, Lexical
from pleinair.tools.retrieval.rerank import EACH, interleave
from pleinair.tools.types import BadInput, Encoder, Hit, Retriever, Value

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.types import Vectors


_K = 60  # of reciprocal rank fusion (Cormack et al., 2009)
DEPTH = 100  # ranks of each list that reciprocal rank fusion counts


class RetrievalOptions(Value):
    """Method, filters and threshold of retrieval.

    The threshold is a cosine similarity and applies to the method "dense", whose weaker hits are recorded but
    never selected; "hybrid" leaves them out of the fusion. Other methods' scores are not cosines, so they
    abstain only if nothing is found. Copies are recognised by the cosine of their vectors, or without an
    index by equal pixels.
    """

    method: str = Field(default="dense", min_length=1)  # of the registry, such as "lexical" or "hybrid"
    rerank: Literal["none", "bm25"] = "none"  # of the best hits, by their captions
    licenses: tuple[str, ...] = ()  # accepted ones; empty accepts all
    deduplicate: float = Field(default=0.995, ge=0, le=1)  # cosine from which images are copies; 0 keeps all
    threshold: float = Field(default=0.0, ge=-1, le=1)  # cosine of the weakest hit that is selected
    arguments: dict[str, Any] = Field(default_factory=dict, exclude_if=not_)  # of the method


class Dense(Retriever, Protocol):
    """Retriever by an encoder's vectors; its scores are cosines."""

    @property
    def encoder(self) -> Encoder:
        """Return the encoder of the texts and of the images' vectors."""

    def vector(self, id: str) -> Vectors:
        """Return an image's vector, float32 [dim], of length 1."""


class Corpus:
    """What a retrieval method searches: a library, whose index and encoder are opened when first used."""

    def __init__(
        self,
        options: RetrievalOptions,
        library: Callable[[], Library],
        dense: Callable[[], Dense],
        second: Callable[[], Dense] | None = None,
    ) -> None:
        """Take the options and what opens the library, its dense retriever and that of the second encoder."""
        self.options = options
        self._library, self._dense, self._second = Once(library), Once(dense), second and Once(second)

    @property
    def dense(self) -> Dense:
        """Return the dense retriever; the first use loads the encoder and updates the index."""
        return self._dense()

    @property
    def second(self) -> Dense:
        """Return the dense retriever of `retrieval.second`; raise `BadInput` if there is none."""
        if self._second is None:
            raise BadInput(f"retrieval.method = {self.options.method!r} needs a table retrieval.second.")
        return self._second()

    def open(self, id: str) -> Image:
        """Open an image of the library; raise `BadPicture` for a damaged file."""
        return self._library().picture(id)

    def entries(self) -> Sequence[Hit]:
        """List the files of the library, unreadable ones included, in its order and at score 0."""
        return self._entries

    @cached_property
    def _entries(self) -> list[Hit]:
        return [item.hit(0.0) for item in self._library().items.values()]


def check_method(options: RetrievalOptions) -> Callable[..., Any]:
    """Return what builds the method; raise `BadInput` for an unknown one or for unusable arguments."""
    if options.method not in (names := registry.names("retriever")):
        choices = ", ".join(names) or "none installed; repeat `pip install --editable .` of pleinair"
        hint = registry.did_you_mean(options.method, names)
        raise BadInput(f"retrieval.method = {options.method!r}: unknown; accepted: {choices}.{hint}")
    return checked("retriever", options.method, options.arguments, "retrieval.arguments", positional=1)


def compose(options: RetrievalOptions, corpus: Corpus) -> Retriever:
    """Build the retriever that the options describe; raise `BadInput` for an unknown method."""
    method = check_method(options)(corpus, **options.arguments)
    retriever: Retriever = method if isinstance(method, Retriever) else Wrapper(corpus, method)
    if not getattr(method, "filtered", False):
        retriever = _filtered(retriever, options, getattr(method, "vector", None))
    return CaptionOrder(retriever) if options.rerank == "bm25" else retriever


def threshold_of(options: RetrievalOptions) -> float:
    """Return the score below which retrieval abstains: -1, which is none, for any method but "dense"."""
    return options.threshold if options.method == "dense" else -1.0


def dense(corpus: Corpus) -> Dense:
    """Build the method "dense"."""
    return corpus.dense


def hybrid(corpus: Corpus) -> Merged:
    """Build the method "hybrid": dense hits over the threshold and lexical hits, fused by their ranks."""

    def merge(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
        by_vector, by_words = rankings
        return fuse([[hit for hit in by_vector if hit.score >= corpus.options.threshold], by_words])

    dense = corpus.dense
    return Merged((dense, Lexical(dense)), merge, lambda k: max(k, DEPTH), vector=dense.vector)


def both(corpus: Corpus) -> Merged:
    """Build the method "both": the filtered hits of two encoders in turn, three of either at most."""
    options, vector = corpus.options, corpus.dense.vector
    return alternating(_filtered(corpus.dense, options, vector), _filtered(corpus.second, options, vector))


def alternating(first: Retriever, second: Retriever) -> Merged:
    """Build a retriever of the best hits of two others in turn, `EACH` of either at most."""
    return Merged((first, second), interleave, lambda k: min(k, EACH), filtered=True)


def fuse(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Merge rankings by reciprocal rank fusion: an image's score is the sum of 1 / (60 + rank), ranks from 1.

    Two rankings give 2/61 to an image that is first in both, 1/61 to one that is first in one and not in the
    other. Of equal scores the hit of the earlier ranking comes first.
    """
    hits: dict[str, Hit] = {}
    sums: dict[str, float] = defaultdict(float)
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            hits.setdefault(hit.id, hit)
            sums[hit.id] += 1 / (_K + rank)
    fused = [hit.model_copy(update={"score": sums[id]}) for id, hit in hits.items()]
    return sorted(fused, key=lambda hit: -hit.score)


def _filtered(
    retriever: Retriever, options: RetrievalOptions, vector: Callable[[str], Vectors] | None
) -> Retriever:
    if options.licenses:
        retriever = Filtered(retriever, by_license(options.licenses))
    if vector is None:
        keep = readable(retriever.open, copies=not options.deduplicate)
    elif options.deduplicate:
        keep = distinct(vector, options.deduplicate)
    else:
        return retriever
    return Filtered(retriever, keep, filter_entries=False)
