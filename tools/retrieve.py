"""The verb `retrieve`: look one concept up in the user's library, or say why nothing there will do."""

from __future__ import annotations

from pleinair.tools.types import Concept, Hit, Retrieval, Retriever


def retrieve(concept: Concept, *, retriever: Retriever, k: int, threshold: float) -> Retrieval:
    """Look up a concept's caption and keep what was found, best first, at most `k` hits.

    Abstain when no hit scores `threshold` or more; the hits are recorded either way, so that a reader
    sees how near it was. Raise what the retriever raises: `BadInput` for `k` under 1 or an empty caption.
    """
    hits = tuple(retriever.search(concept.caption, k))
    reason = _why_not(hits, threshold)
    return Retrieval(
        concept=concept.name,
        query=concept.caption,
        hits=hits,
        threshold=threshold,
        abstained=bool(reason),
        reason=reason,
    )


def _why_not(hits: tuple[Hit, ...], threshold: float) -> str:
    if not hits:
        return "no picture in the library was found"
    best = max(hit.score for hit in hits)
    if best >= threshold:
        return ""
    return f"best match {best:.2f} is under the threshold {threshold:.2f}"
