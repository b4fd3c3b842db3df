"""The verb `retrieve`: search the user's library for one concept, and abstain below a threshold."""

from __future__ import annotations

import inspect

from pleinair.tools.types import BadInput, Concept, Hit, Retrieval, Retriever, Searcher


def retrieve(concept: Concept, *, retriever: Retriever, k: int, threshold: float, seed: int = 0) -> Retrieval:
    """Search for a concept's caption and return at most `k` hits, best first.

    Abstain when no hit scores `threshold` or more; the hits are returned either way. `seed` is the run's, for
    retrievers that take one. Raise what the retriever raises: `BadInput` for `k` under 1 or an empty caption.
    """
    hits = tuple(search(retriever, concept.caption, k, seed))
    reason = _reason_to_abstain(hits, threshold)
    return Retrieval(
        concept=concept.name,
        query=concept.caption,
        hits=hits,
        threshold=threshold,
        abstained=bool(reason),
        reason=reason,
    )


def search(searcher: Searcher, query: str, k: int, seed: int) -> list[Hit]:
    """Search for up to `k` images; pass the run's seed if `searcher.search` has a parameter `seed`."""
    seeded = "seed" in inspect.signature(searcher.search).parameters
    return searcher.search(query, k, **({"seed": seed} if seeded else {}))


def check_query(query: str, k: int) -> None:
    """Raise `BadInput` for `k` under 1 or a blank query."""
    if k < 1:
        raise BadInput(f"`k` is {k}, wanted 1 or more.")
    if not query.strip():
        raise BadInput("The query is empty; describe what the image should show.")


def _reason_to_abstain(hits: tuple[Hit, ...], threshold: float) -> str:
    if not hits:
        return "no image in the library was found"
    best = max(hit.score for hit in hits)
    return "" if best >= threshold else f"best match {best:.2f} is under the threshold {threshold:.2f}"
