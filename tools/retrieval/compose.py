"""Retrieval methods by name, and their composition with filters and re-ranking as the settings say.

"dense" ranks by an encoder's vectors, "lexical" by the words of captions, "hybrid" fuses both, "auto" is
"hybrid" where the library has captions and "dense" elsewhere, "named" is "dense" for what a caption names and
abstains from the rest, and "both" alternates between two encoders, as ImageRAG's re-ranking needs. A method
is an entry point of the group `pleinair.retriever`: a callable that takes a `Corpus`, and keyword arguments
from `retrieval.arguments`, and returns an object with `search`. Licenses and copies are filtered before hits
are re-ranked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import not_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import (
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from pleinair.tools.arguments import checked
from pleinair.tools.images.reading import BadPicture
from pleinair.tools.locks import Once
from pleinair.tools.realrag import search_away
from pleinair.tools.retrieval.catalogue import has_captions
from pleinair.tools.retrieval.conditions import (
    Conditions,
    EmptySelection,
    count_met,
    count_usable,
    explain_empty,
)
from pleinair.tools.retrieval.faiss_index import GPU_MEMORY
from pleinair.tools.retrieval.filters import (
    Conditional,
    Filtered,
    Images,
    Merged,
    Wrapper,
    by_license,
    by_tags_and_side,
    readable,
    similar,
)
from pleinair.tools.retrieval.fusion import Same, distinct, fuse
from pleinair.tools.retrieval.lexical import CaptionOrder, Lexical, NumberOrder
from pleinair.tools.retrieval.rerank import EACH, interleave
from pleinair.tools.retrieve import open_image, search_all
from pleinair.tools.types import BadInput, Encoder, Hit, Retriever, Value

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.retrieval.catalogue import Catalogue
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.retrieval.threshold import RelativeThreshold
    from pleinair.tools.types import Vectors


AUTO, BOTH, LEXICAL, NAMED = "auto", "both", "lexical", "named"
_BY_COSINE = (AUTO, "dense", "hybrid", NAMED)  # methods to which the threshold applies
PAPERS = {"method": "dense", "drop_near_copies": False}  # with which the papers' graphs retrieve
_MATCHES = ("both", "caption", "similarity", "")  # in the order of hits of "hybrid"
DEPTH = 100  # ranks of each list that reciprocal rank fusion counts


def _or_auto(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a cosine, or "auto"; unlike those of a union, the errors are of the key itself."""
    if isinstance(value, str) and value.strip().lower() == AUTO:
        return AUTO
    try:
        return validate(value)
    except ValidationError:
        if not isinstance(value, str):
            raise
        text = "must be a cosine from -1 to 1, or 'auto'"
        raise PydanticCustomError("cosine_or_auto", text) from None


if TYPE_CHECKING:
    Threshold = float | Literal["auto"]
else:
    Threshold = Annotated[
        float,
        Field(ge=-1, le=1),
        WrapValidator(_or_auto),
        PlainSerializer(lambda threshold: threshold, return_type=float | Literal["auto"]),
        WithJsonSchema({"anyOf": [{"type": "number", "minimum": -1, "maximum": 1}, {"const": AUTO}]}),
    ]


class RetrievalOptions(Value):
    """Method, filters and threshold of retrieval.

    The threshold is a cosine similarity, or "auto": one for each query, as captions calibrate it. Weaker hits
    of "dense" are recorded but never selected; a hit of "hybrid" counts if its cosine reaches the threshold,
    or if its caption has the query's words. Other methods' scores are not cosines, so they abstain only if
    nothing is found. Copies are recognised by the cosine of their vectors, or without an index by equal
    pixels, and near copies by small aligned images.
    """

    method: str = Field(
        default=AUTO,
        min_length=1,
        description='"dense", "lexical", "hybrid", "both", "named" (dense, but abstains from what no caption '
        'names) or a plug-in; "auto": hybrid where the library has captions, dense elsewhere and for the '
        "papers' graphs, named for the pocket library",
    )
    rerank: Literal["none", "bm25"] = "none"  # of the best hits, by their captions
    licenses: tuple[str, ...] = Field(
        default=(),
        description='of images that may be retrieved: SPDX identifiers; "known": any that is stated; "free": '
        "any that permits commercial use and changes; empty accepts all",
    )
    tags: tuple[str, ...] = Field(
        default=(),
        exclude_if=not_,
        description="of images that may be retrieved, which need one of them; empty accepts all",
    )
    min_side: int = Field(
        default=0,
        ge=0,
        exclude_if=not_,
        description="shorter side of images that may be retrieved, in pixels, at least",
    )
    gpu_memory: float = Field(
        default=GPU_MEMORY,
        ge=0,
        exclude_if=lambda memory: memory == GPU_MEMORY,
        description="GiB that the vectors may take on a GPU, beside encoder and generator; more stay on "
        "the CPU, and with 0 all",
    )
    deduplicate: float = Field(default=0.995, ge=0, le=1)  # cosine from which images are copies; 0 keeps all
    drop_near_copies: bool = Field(
        default=True,
        exclude_if=bool,
        description="leave out rescaled, recompressed and cropped copies of better hits unless "
        "`deduplicate` is 0; never for the pocket library, nor for the papers' graphs without a method set",
    )
    threshold: Threshold = Field(
        default=0.0,
        description='cosine of the weakest hit that is selected; "auto": one for each query, relative to its '
        "scores over a sample of the library and calibrated by the captions when first used",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, exclude_if=not_)  # of the method

    @property
    def conditions(self) -> Conditions:
        """Return the conditions on the images that may be retrieved."""
        return Conditions(self.licenses, self.tags, self.min_side)


class Dense(Retriever, Protocol):
    """Retriever by an encoder's vectors; its scores are cosines."""

    @property
    def encoder(self) -> Encoder:
        """Return the encoder of the texts and of the images' vectors."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts, float32 [n, dim], rows of length 1."""

    def vector(self, id: str) -> Vectors:
        """Return an image's vector, float32 [dim], of length 1."""


class Thresholded(Wrapper):
    """Dense retriever whose hits carry the threshold of their query."""

    def __init__(self, dense: Dense, threshold: RelativeThreshold) -> None:
        super().__init__(dense)
        self._retriever, self._threshold = dense, threshold
        self.encoder, self.embed, self.vector = dense.encoder, dense.embed, dense.vector

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first."""
        return self.search_many([query], k, seed)[0]

    def search_many(self, queries: Sequence[str], k: int, seed: int = 0) -> list[list[Hit]]:
        """Search for each of several texts."""
        rankings = search_all(self._retriever, queries, k, seed)
        scores = [self._threshold.of(vector[None]) for vector in self.embed(queries)]
        return [
            [hit.model_copy(update={"query_scores": of_query}) for hit in hits]
            for hits, of_query in zip(rankings, scores, strict=True)
        ]

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search near a text and far from an image, without a threshold."""
        return search_away(self._retriever, query, away, weight=weight, k=k)


class Named(Wrapper):
    """Dense retriever of which no hit counts for a query whose thing no caption of the library names."""

    def __init__(self, dense: Dense) -> None:
        super().__init__(dense)
        self._retriever, self._lexical, self.vector = dense, Lexical(dense), dense.vector

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first."""
        return self.search_many([query], k, seed)[0]

    def search_many(self, queries: Sequence[str], k: int, seed: int = 0) -> list[list[Hit]]:
        """Search for each of several texts."""
        rankings = search_all(self._retriever, queries, k, seed)
        return [
            hits if self._is_named(query) else [_as_fused(hit, math.inf) for hit in hits]
            for query, hits in zip(queries, rankings, strict=True)
        ]

    def _is_named(self, query: str) -> bool:
        return any(hit.matched_by for hit in self._lexical.search(query, DEPTH))

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search near a text and far from an image, whatever the captions name."""
        return search_away(self._retriever, query, away, weight=weight, k=k)


class Corpus:
    """What a retrieval method searches: a library, whose index and encoder are opened when first used."""

    def __init__(
        self,
        options: RetrievalOptions,
        library: Callable[[], Library],
        dense: Callable[[], Dense],
        second: Callable[[], Dense] | None = None,
        relative: Callable[[Dense], RelativeThreshold] | None = None,
    ) -> None:
        """Store the options and what opens the library, its dense retriever and that of the second encoder.

        `relative` opens the threshold that is relative to the query, of the dense retriever.
        """
        self.options = options
        self._library, self._dense, self._second = Once(library), Once(dense), second and Once(second)
        self._relative = relative
        # no cached properties: up to Python 3.11 one lock serves those of all corpora
        self._among = Once(lambda: _among(self._dense(), options.conditions))
        self._thresholded = Once(self._with_threshold)
        self._listing = Once(lambda: self._library().as_catalogue())
        self._listed = Once(lambda: [item.hit() for item in self._library().items.values()])

    def with_options(self, options: RetrievalOptions) -> Corpus:
        """Return the same corpus with other options."""
        return Corpus(options, self._library, self._dense, self._second, self._relative)

    @property
    def dense(self) -> Dense:
        """Return the dense retriever; the first use loads the encoder and updates the index.

        It searches among the images that meet the conditions of the options, if it can; others are filtered
        out of its hits.
        """
        return self._among()

    @property
    def thresholded(self) -> Dense:
        """Return the dense retriever; where the threshold is "auto" its hits carry that of their query.

        Raise `BadInput` if the library has too few captions to calibrate it.
        """
        return self.dense if self.options.threshold != AUTO else self._thresholded()

    def _with_threshold(self) -> Dense:
        if self._relative is None:
            raise BadInput(f"retrieval.threshold = {AUTO!r}: not for this retriever; accepted: a cosine")
        return Thresholded(self.dense, self._relative(self._dense()))

    @property
    def second(self) -> Dense:
        """Return the dense retriever of `retrieval.second`; raise `BadInput` if there is none."""
        if self._second is None:
            raise BadInput(f"retrieval.method = {self.options.method!r} needs a table retrieval.second.")
        return _among(self._second(), self.options.conditions)

    @property
    def empty(self) -> EmptySelection | None:
        """Return what keeps every image from being retrieved, None if an image meets the conditions."""
        return explain_empty(self._catalogue, self.options.conditions) if self.options.conditions else None

    @property
    def searched(self) -> int:
        """Return how many images meet the conditions of the options."""
        conditions = self.options.conditions
        return count_met(self._catalogue, conditions) if conditions else self.images

    @property
    def images(self) -> int:
        """Return the number of images that can be retrieved without conditions."""
        return count_usable(self._catalogue)

    @property
    def _catalogue(self) -> Catalogue:
        """Return the catalogue, of a library that has just been indexed that of its index."""
        index: Index | None = getattr(self._dense(), "index", None) if self._dense.is_built else None
        return index.catalogue if index else self._listing()

    def tags(self, id: str) -> tuple[str, ...]:
        """Return the tags of an image; raise `BadInput` for an unknown id."""
        return self._library().item(id).tags

    def side(self, id: str) -> int:
        """Return the shorter side of an image in pixels, 0 of one that cannot be read."""
        catalogue = self._library().catalogue
        if catalogue and (file := catalogue.file(id)):
            return min(file.width, file.height)
        try:
            return min(self._library().picture(id, side=0).size)
        except BadPicture:
            return 0

    def open(self, id: str) -> Image:
        """Open an image of the library; raise `BadPicture` for a damaged file."""
        return self._library().picture(id)

    def entries(self) -> Sequence[Hit]:
        """List the files of the library, unreadable ones included, in its order and at score 0."""
        return self._listed()


def _among(dense: Dense, conditions: Conditions) -> Dense:
    """Return the dense retriever of the images that meet conditions, or the same one if it cannot select."""
    among: Callable[[Conditions], Dense] | None = getattr(dense, "among", None)
    return among(conditions) if among and conditions else dense


def check_method(options: RetrievalOptions) -> Callable[..., Any]:
    """Return what builds the method; raise `BadInput` for an unknown one or for unusable arguments."""
    table, setting = "retrieval.arguments", "retrieval.method"
    return checked("retriever", options.method, options.arguments, table, positional=1, setting=setting)


def compose(options: RetrievalOptions, corpus: Corpus) -> Retriever:
    """Build the retriever that the options describe; raise `BadInput` for an unknown method."""
    corpus = corpus.with_options(options)
    retriever = _composed(options, corpus)
    if not options.conditions:
        return retriever
    every = options.model_copy(update={"licenses": ()})
    unlicensed = Once(lambda: _composed(every, corpus.with_options(every))) if options.licenses else None
    return Conditional(retriever, unlicensed, lambda: corpus.empty)


def _composed(options: RetrievalOptions, corpus: Corpus) -> Retriever:
    method = check_method(options)(corpus, **options.arguments)
    retriever = method if isinstance(method, Retriever) else Wrapper(corpus, method)
    if (options.tags or options.min_side) and not getattr(method, "filtered", False):
        retriever = Filtered(retriever, by_tags_and_side(options.conditions, corpus.tags, corpus.side))
    return filtered(retriever, options, method)


def filtered(retriever: Retriever, options: RetrievalOptions, method: object = None) -> Retriever:
    """Return a retriever with the filters and the re-ranking of the options; `method` may say how.

    Not filtered by tags and size, which a hit does not have.
    """
    if not getattr(method, "filtered", False):
        retriever = _filtered(retriever, options, getattr(method, "vector", None))
    return CaptionOrder(retriever) if options.rerank == "bm25" else retriever


def filtered_by_license(retriever: Retriever, options: RetrievalOptions) -> Retriever:
    """Return a program's own retriever with the filters of the options; it tells what licenses exclude."""
    every = options.model_copy(update={"licenses": ()})
    if not options.licenses:
        return filtered(retriever, options)
    return Conditional(filtered(retriever, options), Once(lambda: filtered(retriever, every)))


def threshold_of(options: RetrievalOptions) -> float | None:
    """Return the cosine below which retrieval abstains: -1, which is none, for methods without cosines.

    None: the hits of each query carry it.
    """
    if options.method not in _BY_COSINE:
        return -1.0
    return None if isinstance(options.threshold, str) else options.threshold


def dense(corpus: Corpus) -> Dense:
    """Build the method "dense"."""
    return corpus.thresholded


def named(corpus: Corpus) -> Named:
    """Build the method "named": "dense", of which no hit counts for what no caption of the library names.

    For a library whose captions name all that it shows, and an encoder that knows no other names: the
    cosines of a word that it never learnt mean nothing.
    """
    return Named(corpus.thresholded)


def auto(corpus: Corpus) -> Dense | Merged:
    """Build the method "auto": "hybrid" where an image has a caption, else "dense"."""
    return hybrid(corpus) if has_captions(corpus.dense.entries()) else corpus.thresholded


def hybrid(corpus: Corpus) -> Merged:
    """Build the method "hybrid": lexical and dense hits, fused by their ranks, those that count first.

    A hit counts if its caption has the words of the query, or if its cosine reaches the threshold. Hits of
    which both is true come first, then those by their captions: an encoder finds something similar to any
    name, also to one that it never learnt. Dense hits under the threshold come last, and are not fused.
    Captions that name the thing in the query's number rank before others.
    """
    flat, dense = threshold_of(corpus.options), corpus.thresholded

    def merge(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
        scores = next((hit.query_scores for hit in rankings[1]), None)
        threshold = scores.threshold if scores else flat
        by_words = [hit.model_copy(update={"query_scores": scores}) for hit in rankings[0]]
        by_vector = [_as_fused(hit, -1.0 if threshold is None else threshold) for hit in rankings[1]]
        near = [hit for hit in by_vector if hit.matched_by]
        fused = fuse([by_words, near])
        ids = {hit.id for hit in fused}
        weak = [hit for hit in by_vector if hit.id not in ids]
        return [*sorted(fused, key=lambda hit: _MATCHES.index(hit.matched_by)), *weak]

    lexical = NumberOrder(Lexical(dense))
    return Merged((lexical, dense), merge, lambda k: max(k, DEPTH), vector=dense.vector)


def _as_fused(hit: Hit, threshold: float) -> Hit:
    """Return a dense hit with its cosine beside the score, and a match if that reaches the threshold."""
    match = "similarity" if hit.score >= threshold else ""
    return hit.model_copy(
        update={"similarity": hit.score, "matched_by": match, "score": 0.0, "score_kind": "rrf"}
    )


def both(corpus: Corpus) -> Merged:
    """Build the method "both": the filtered hits of two encoders in turn, three of either at most."""
    options, vector = corpus.options, corpus.dense.vector
    images = Images(corpus.dense.open)
    return alternating(
        _filtered(corpus.dense, options, vector, images),
        _filtered(corpus.second, options, vector, images),
        images.near_copies if options.deduplicate and options.drop_near_copies else None,
    )


def alternating(first: Retriever, second: Retriever, same: Same | None = None) -> Merged:
    """Build a retriever of the best hits of two others in turn, `EACH` of either at most.

    With `same` a hit that is the same as a better one of the other retriever is left out.
    """

    def merge(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
        hits = interleave(rankings)
        return distinct(same)(hits, len(hits)) if same else hits

    return Merged((first, second), merge, lambda k: min(k, EACH), filtered=True)


def _filtered(
    retriever: Retriever,
    options: RetrievalOptions,
    vector: Callable[[str], Vectors] | None,
    images: Images | None = None,
) -> Retriever:
    images = images or Images(partial(open_image, retriever))
    if options.licenses:
        retriever = Filtered(retriever, by_license(options.licenses))
    if vector is None:
        retriever = Filtered(retriever, readable(images), filter_entries=False)
    if not options.deduplicate:
        return retriever
    if vector is not None:
        same = similar(vector, options.deduplicate, images if options.drop_near_copies else None)
    else:
        same = images.near_copies if options.drop_near_copies else images.equal
    return Filtered(retriever, distinct(same), filter_entries=False)
