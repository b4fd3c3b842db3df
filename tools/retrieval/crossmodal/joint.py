"""Find the pictures that together show all sub-queries: Cross-modal RAG's stages 1 to 3, in one go.

Captions first, so that only what they let through is looked at. S, the mean of a picture's cosines to the
sub-queries that its caption satisfies, or to all, is computed once. Without the sparse stage there are no
satisfaction vectors: the best `k` of the whole library are taken by their mean to all, and each sub-query
goes to the one of them with the highest cosine (ours).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING

from pleinair.tools.crossmodal import CrossmodalOptions
from pleinair.tools.retrieval.crossmodal import pareto
from pleinair.tools.retrieval.crossmodal.sparse import Vector, kept, satisfaction
from pleinair.tools.types import Hit, Scorer, Value

if TYPE_CHECKING:
    from pleinair.tools.types import Cosines


class Member(Value):
    """Hold one picture of the answer with the sub-queries it serves; the hit's score is S."""

    hit: Hit
    satisfied: tuple[str, ...]
    cosines: tuple[float, ...] = ()  # to each sub-query of the prompt; empty without the dense stage


class Joint(Value):
    """Report a joint retrieval: how many pictures each stage let through, and which came out."""

    pictures: int  # D
    kept: int  # D̃, the ones that were scored
    members: tuple[Member, ...]  # P, in the library's order
    uncovered: tuple[str, ...]  # sub-queries that no caption contains
    warning: str = ""

    def coverage(self, subqueries: Sequence[str]) -> float:
        """Give the share of the sub-queries in captions that a member's caption contains; 1 where none is.

        Meaningless without the sparse stage, as nobody has looked at captions then.
        """
        coverable = set(subqueries) - set(self.uncovered)
        served = {one for member in self.members for one in member.satisfied}
        return len(coverable & served) / len(coverable) if coverable else 1.0


def retrieve_jointly(
    entries: Sequence[Hit],
    subqueries: Sequence[str],
    *,
    scorer: Scorer,
    options: CrossmodalOptions,
    k: int,
    seed: int,
) -> Joint:
    """Retrieve for all sub-queries at once.

    Args:
        entries: the library D with its captions.
        subqueries: n of them, each once.
        scorer: gives the cosines; not asked without the dense stage.
        options: which stages, and how the set is chosen.
        k: pictures of the rankings that stand in for the Pareto set; at least 0.
        seed: of the lot that stands in for the dense stage.

    Raises:
        BadInput: a sub-query without a word, or a grid that is too coarse or too large.
    """
    if not options.sparse:
        return _rank_all(entries, subqueries, scorer, k)
    vectors = satisfaction([one.caption for one in entries], subqueries)
    rows = kept(vectors)
    hits, flags = [entries[row] for row in rows], [vectors[row] for row in rows]
    cosines = scorer.score(subqueries, [one.id for one in hits]) if options.dense and hits else None
    counted = flags if options.scored == "satisfied" else None
    means = _lots(hits, seed) if cosines is None else _mean(cosines, counted)
    chosen = _choose(flags, means, options, k)
    seen = {row: (means[row], cosines[row]) for row in chosen} if cosines is not None else {}
    doubt = options.pareto == "paper" and rows
    return Joint(
        pictures=len(entries),
        kept=len(rows),
        members=tuple(member(hits[row], flags[row], subqueries, *seen.get(row, ())) for row in chosen),
        uncovered=tuple(one for one, *had in zip(subqueries, *flags, strict=True) if not any(had)),
        warning=pareto.warning(len(subqueries), means, options.beta, options.grid_steps) if doubt else "",
    )


def _choose(flags: Sequence[Vector], means: Sequence[float], options: CrossmodalOptions, k: int) -> list[int]:
    """Choose places by the way that the options name."""
    if options.pareto == "top_k":
        return sorted(_best(means, k))
    if options.pareto == "paper":
        return pareto.scalarised(flags, means, options.beta, options.grid_steps)
    return pareto.exact(flags, means)


def _rank_all(entries: Sequence[Hit], subqueries: Sequence[str], scorer: Scorer, k: int) -> Joint:
    """Rank the whole library by S."""
    if not entries or k < 1:
        return Joint(pictures=len(entries), kept=0, members=(), uncovered=tuple(subqueries))
    cosines = scorer.score(subqueries, [one.id for one in entries])
    means = _mean(cosines)
    chosen = sorted(_best(means, k))
    owner = [max(chosen, key=lambda row: float(cosines[row, column])) for column in range(len(subqueries))]
    flags = {row: tuple(one == row for one in owner) for row in chosen}
    return Joint(
        pictures=len(entries),
        kept=len(entries),
        members=tuple(
            member(entries[row], flags[row], subqueries, means[row], cosines[row]) for row in chosen
        ),
        uncovered=(),
    )


def member(
    hit: Hit, flags: Vector, subqueries: Sequence[str], score: float = 0.0, cosines: Iterable[float] = ()
) -> Member:
    """Put one chosen picture together."""
    return Member(
        hit=hit.model_copy(update={"score": round(score, 6)}),
        satisfied=tuple(compress(subqueries, flags)),
        cosines=tuple(round(float(one), 6) for one in cosines),
    )


def _mean(cosines: Cosines, counted: Sequence[Vector] | None = None) -> list[float]:
    """Give S of each picture: the mean of its cosines to the sub-queries that count for it, or to all."""
    import numpy as np

    return [float(one) for one in np.average(cosines, axis=1, weights=counted)]


def _lots(hits: Sequence[Hit], seed: int) -> list[float]:
    """Draw a number in 0..1 for each picture; the same seed and picture give the same."""
    return [random.Random(f"{seed}/{hit.id}").random() for hit in hits]


def _best(means: Sequence[float], k: int) -> list[int]:
    """Give the places of the `k` highest, ties to the earlier."""
    return sorted(range(len(means)), key=lambda row: (-means[row], row))[:k]
