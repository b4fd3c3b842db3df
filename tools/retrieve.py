"""The verb `retrieve`: search the user's library for one concept, and abstain below a threshold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from pleinair.tools.retrieval.fusion import distinct, fuse
from pleinair.tools.types import (
    BadInput,
    BatchSearcher,
    Concept,
    Hit,
    ImageSource,
    ModelFault,
    NoLibrary,
    QueryScores,
    Retrieval,
    Retriever,
    Searcher,
    is_match,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.retrieval.conditions import EmptySelection

NOTHING = "no image in the library was found"


def retrieve(
    concept: Concept,
    *,
    retriever: Retriever,
    k: int,
    threshold: float | None,
    seed: int = 0,
    with_name: bool = False,
) -> Retrieval:
    """Search for a concept's caption and return at most `k` hits, best first.

    Abstain when no hit counts, by `is_match`; the hits are returned either way, and the ids of images that
    would count but for their licenses. Without a `threshold` it is the one that the retriever sets for the
    query, and none if it sets none. Abstain, too, where the library is gone. With `with_name` hybrid
    retrieval also searches for captions with the concept's name. `seed` is the run's, for retrievers that
    take one. Raise what the retriever raises: `BadInput` for `k` under 1 or an empty caption.
    """
    (retrieval,) = retrieve_all(
        [concept], retriever=retriever, k=k, threshold=threshold, seed=seed, with_name=with_name
    )
    return retrieval


def retrieve_all(
    concepts: Sequence[Concept],
    *,
    retriever: Retriever,
    k: int,
    threshold: float | None,
    seed: int = 0,
    with_name: bool = False,
) -> list[Retrieval]:
    """Retrieve for each of several concepts as `retrieve` does, with one search for all if possible."""
    try:
        rankings = _hits_of_all(concepts, retriever, k, seed, with_name)
        retrievals = [
            _retrieval(concept, hits, threshold) for concept, hits in zip(concepts, rankings, strict=True)
        ]
        abstained = [n for n, retrieval in enumerate(retrievals) if retrieval.abstained]
        if abstained and (unlicensed := unlicensed_of(retriever)):
            others = _hits_of_all([concepts[n] for n in abstained], unlicensed, k, seed, with_name)
            for n, hits in zip(abstained, others, strict=True):
                excluded = tuple(hit.id for hit in hits if is_match(hit, retrievals[n].threshold or 0.0))
                retrievals[n] = excluding(retrievals[n], excluded)
        retrievals = [explained(retrieval, retriever) for retrieval in retrievals]
    except NoLibrary as error:
        return [no_retrieval(concept, error) for concept in concepts]
    return retrievals


def _retrieval(concept: Concept, hits: tuple[Hit, ...], threshold: float | None) -> Retrieval:
    scores = None
    if threshold is None:
        scores = next((hit.query_scores for hit in hits if hit.query_scores), None)
        threshold = scores.threshold if scores else -1.0
    reason = _reason_to_abstain(hits, threshold, scores)
    return Retrieval(
        concept=concept.name,
        query=concept.caption,
        hits=hits,
        threshold=threshold,
        query_scores=scores,
        abstained=bool(reason),
        reason=reason,
    )


def excluding(retrieval: Retrieval, ids: tuple[str, ...]) -> Retrieval:
    """Return a retrieval that abstains for the licenses of some images alone; unchanged for no `ids`."""
    if not ids:
        return retrieval
    count = "1 image that matches is" if len(ids) == 1 else f"{len(ids)} images that match are"
    update = {"abstained": True, "reason": f"{count} excluded by license", "excluded_by_license": ids}
    return retrieval.model_copy(update=update)


def explained(retrieval: Retrieval, retriever: object) -> Retrieval:
    """Return a retrieval without hits that names the conditions which no image of the library meets."""
    if retrieval.hits or not (empty := empty_of(retriever)):
        return retrieval
    unmet = {cause.setting: cause.images for cause in empty.unmet}
    return retrieval.model_copy(update={"abstained": True, "reason": empty.message, "unmet": unmet})


def empty_of(retriever: object) -> EmptySelection | None:
    """Return what keeps every image from being retrieved, None if one may be or if it is not known."""
    empty: EmptySelection | None = getattr(retriever, "empty", None)
    return empty


def unlicensed_of(retriever: object) -> Retriever | None:
    """Return a retriever's counterpart for images of all licenses, None where it has no filter of them."""
    unlicensed: Retriever | None = getattr(retriever, "unlicensed", None)
    return unlicensed


def _hits_of_all(
    concepts: Sequence[Concept], retriever: Retriever, k: int, seed: int, with_name: bool
) -> list[tuple[Hit, ...]]:
    rankings = search_all(retriever, [concept.caption for concept in concepts], k, seed)
    named = [
        n
        for n, (concept, hits) in enumerate(zip(concepts, rankings, strict=True))
        if with_name and _has_other_name(concept) and any(hit.score_kind == "rrf" for hit in hits)
    ]
    by_name = search_all(retriever, [concepts[n].name for n in named], k, seed)
    for n, hits in zip(named, by_name, strict=True):
        rankings[n] = _with_named(rankings[n], hits, k)
    return [tuple(hits) for hits in rankings]


def _has_other_name(concept: Concept) -> bool:
    return concept.name != concept.caption and bool(concept.name.strip())


def no_retrieval(concept: Concept, error: NoLibrary) -> Retrieval:
    """Return the retrieval of a library that is gone."""
    reason = str(error).splitlines()[0]
    return Retrieval(concept=concept.name, query=concept.caption, hits=(), abstained=True, reason=reason)


def _with_named(hits: list[Hit], hits_by_name: Iterable[Hit], k: int) -> list[Hit]:
    """Fuse the hits with the images whose captions have the concept's name, if there are others."""
    # the threshold is the caption's
    by_name = [hit.model_copy(update={"query_scores": None}) for hit in _by_caption(hits_by_name)]
    if {hit.id for hit in by_name} <= {hit.id for hit in _by_caption(hits)}:
        return hits
    fused = fuse([[hit for hit in hits if hit.matched_by], by_name])
    ids = {hit.id for hit in fused}
    merged = (*fused, *(hit for hit in hits if hit.id not in ids))
    keep = distinct(lambda better, hit: hit.id in better.near_copies or better.id in hit.near_copies)
    return keep(merged, k)


def _by_caption(hits: Iterable[Hit]) -> list[Hit]:
    return [hit for hit in hits if hit.matched_by in ("caption", "both")]


def search(searcher: Searcher, query: str, k: int, seed: int) -> list[Hit]:
    """Search for up to `k` images; pass the run's seed if `searcher.search` has a parameter `seed`.

    Raises `ModelFault` for what is no list of hits.
    """
    return _checked_hits(searcher.search(query, k, **_seed_for(searcher.search, seed)), searcher)


def search_all(searcher: Searcher, queries: Sequence[str], k: int, seed: int) -> list[list[Hit]]:
    """Search for each of several texts, in one call of `searcher.search_many` if it has that method.

    Raises `ModelFault` for what is no list of hits for each query.
    """
    if len(queries) < 2 or not searches_many(searcher):
        return [search(searcher, query, k, seed) for query in queries]
    rankings = searcher.search_many(queries, k, **_seed_for(searcher.search_many, seed))
    if not isinstance(rankings, Sequence) or len(rankings) != len(queries):
        count = len(rankings) if isinstance(rankings, Sequence) else type(rankings).__name__
        raise ModelFault(
            f"retriever: `search_many` of {type(searcher).__name__} returned {count} of {len(queries)} lists",
            "It has to return a list of hits for each query, in their order.",
        )
    return [_checked_hits(hits, searcher) for hits in rankings]


def searches_many(searcher: object) -> TypeGuard[BatchSearcher]:
    """Return whether a searcher takes several queries at once."""
    return callable(getattr(searcher, "search_many", None))


def _seed_for(search: Callable[..., Any], seed: int) -> dict[str, int]:
    return {"seed": seed} if "seed" in inspect.signature(search).parameters else {}


def _checked_hits(hits: Any, searcher: Searcher) -> list[Hit]:
    if isinstance(hits, Sequence) and all(isinstance(hit, Hit) for hit in hits):
        return list(hits)
    kinds = [type(hit).__name__ for hit in hits if not isinstance(hit, Hit)] if isinstance(hits, list) else []
    raise ModelFault(
        f"retriever: `search` of {type(searcher).__name__} returned a {type(hits).__name__}"
        + (f" with a {kinds[0]}" if kinds else ""),
        "It has to return a list of pleinair.tools.types.Hit, an empty one where nothing matches.",
    )


def open_image(source: ImageSource, id: str) -> Image:
    """Open an image of a source; raises `ModelFault` for what is no PIL image."""
    from PIL import Image

    image: Any = source.open(id)
    if isinstance(image, Image.Image):
        return image
    raise ModelFault(
        f"retriever: `open` of {type(source).__name__} returned a {type(image).__name__} for {id!r}",
        "It has to return a PIL image.",
    )


def check_query(query: str, k: int) -> None:
    """Raise `BadInput` for `k` under 1 or a blank query."""
    if k < 1:
        raise BadInput(f"`k` is {k}, wanted 1 or more.")
    if not query.strip():
        raise BadInput("The query is empty; describe what the image should show.")


def _reason_to_abstain(hits: tuple[Hit, ...], threshold: float, scores: QueryScores | None) -> str:
    if not hits:
        return NOTHING
    if any(is_match(hit, threshold) for hit in hits):
        return ""
    best = best_score(hits)
    if best is None or best >= threshold:
        return "no caption has its words"
    words = "; no caption has its words" if any(hit.score_kind == "rrf" for hit in hits) else ""
    of_query = f" of this query, whose mean is {scores.mean:.2f}" if scores else ""
    return f"best match {best:.2f} is under the threshold {threshold:.2f}{of_query}{words}"


def best_score(hits: Iterable[Hit]) -> float | None:
    """Return the best score of hits, for those by rank fusion the cosine; None where there is none."""
    scores = (hit.score if hit.score_kind != "rrf" else hit.similarity for hit in hits)
    return max((score for score in scores if score is not None), default=None)
