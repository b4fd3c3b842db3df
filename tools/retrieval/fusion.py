"""Fusion of rankings by the ranks of their hits (Cormack et al., 2009), and of copies into one hit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from pleinair.tools.types import Hit, Match

Keep = Callable[[Sequence[Hit], int], list[Hit]]  # from all hits so far to the first `k` that pass
Same = Callable[[Hit, Hit], bool]  # whether two hits are of copies, the better hit first

_K = 60  # of reciprocal rank fusion


def fuse(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Merge rankings by reciprocal rank fusion: an image's score is the sum of 1 / (60 + rank), ranks from 1.

    Two rankings give 2/61 to an image that is first in both, 1/61 to one that is first in one and not in the
    other. Of equal scores the hit of the earlier ranking comes first. Matches are united.
    """
    hits: dict[str, Hit] = {}
    sums: dict[str, float] = defaultdict(float)
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            hits[hit.id] = _united(hits[hit.id], hit) if hit.id in hits else hit
            sums[hit.id] += 1 / (_K + rank)
    fused = [hit.model_copy(update={"score": sums[id], "score_kind": "rrf"}) for id, hit in hits.items()]
    return sorted(fused, key=lambda hit: -hit.score)


def _united(first: Hit, second: Hit) -> Hit:
    """Return the first hit with the matches and near copies of both, and with the cosine of either."""
    kinds = {first.matched_by, second.matched_by} - {""}
    match: Match = "both" if len(kinds) > 1 else next(iter(kinds), "")
    similarity = second.similarity if first.similarity is None else first.similarity
    copies = tuple(dict.fromkeys((*first.near_copies, *second.near_copies)))
    return first.model_copy(update={"matched_by": match, "similarity": similarity, "near_copies": copies})


def distinct(same: Same) -> Keep:
    """Build a filter that removes copies of a better hit, which lists their ids as its near copies.

    Copies that are worse than the last of `k` hits are not looked for.
    """

    def keep(hits: Sequence[Hit], k: int) -> list[Hit]:
        passed: dict[str, Hit] = {}
        for hit in hits:
            if len(passed) == k:
                break
            original = next((better for better in passed.values() if same(better, hit)), None)
            if original is None:
                passed[hit.id] = hit
            else:
                copies = dict.fromkeys((*original.near_copies, hit.id, *hit.near_copies))
                copies.pop(original.id, None)
                passed[original.id] = original.model_copy(update={"near_copies": tuple(copies)})
        return list(passed.values())

    return keep
