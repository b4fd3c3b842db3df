"""Retrieve the images that together show all sub-queries: Cross-modal RAG's stages 1 to 3.

Captions come first, so that only images with a matching one are scored by their looks. S, the mean of an
image's cosines to the sub-queries that its caption satisfies, or to all, is computed once. Without the sparse
stage there are no satisfaction vectors: the best `k` of the whole library are selected by their mean to all,
and each sub-query is assigned to the one of them with the highest cosine (ours).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING

from pleinair.tools.crossmodal import CrossmodalOptions
from pleinair.tools.retrieval.crossmodal import pareto
from pleinair.tools.retrieval.crossmodal.sparse import Vector, satisfaction
from pleinair.tools.types import Hit, Scorer, Value

if TYPE_CHECKING:
    from pleinair.tools.types import Cosines


class Member(Value):
    """Image of the answer with the sub-queries it serves; the hit's score is S."""

    hit: Hit
    satisfied: tuple[str, ...]
    cosines: tuple[float, ...] = ()  # to each sub-query of the prompt; empty without the dense stage


class Joint(Value):
    """Result of a joint retrieval: how many images each stage passed on, and which were selected."""

    pictures: int  # D
    kept: int  # D̃, the ones that were scored
    members: tuple[Member, ...]  # P, in the library's order
    uncovered: tuple[str, ...]  # sub-queries that no caption contains
    grid_steps: int = 0  # of algorithm 1's weights; 0 where another method selected
    warning: str = ""

    def coverage(self, subqueries: Sequence[str]) -> float:
        """Return the share of the sub-queries in captions that members' captions contain; 1 for none.

        Meaningless without the sparse stage, which reads the captions.
        """
        coverable = set(subqueries) - set(self.uncovered)
        served = {name for member in self.members for name in member.satisfied}
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
        subqueries: n different ones.
        scorer: computes the cosines; unused without the dense stage.
        options: which stages, and how the set is selected.
        k: images of the rankings that replace the Pareto set; at least 0.
        seed: of the lot that replaces the dense stage.

    Raises:
        BadInput: a sub-query without a word.
    """
    if not options.sparse:
        return _rank_all(entries, subqueries, scorer, k)
    vectors = satisfaction([entry.caption for entry in entries], subqueries)
    candidates = [row for row, flags in enumerate(vectors) if any(flags)]
    hits, flags = [entries[row] for row in candidates], [vectors[row] for row in candidates]
    cosines = scorer.score(subqueries, [hit.id for hit in hits]) if options.dense and hits else None
    weights = flags if options.scored == "satisfied" else None
    means = _lots(hits, seed) if cosines is None else _mean(cosines, weights)
    rows = _select(flags, means, options, k)
    dense = {row: (means[row], cosines[row]) for row in rows} if cosines is not None else {}
    warns = options.pareto == "paper" and candidates
    return Joint(
        pictures=len(entries),
        kept=len(candidates),
        members=tuple(_member(hits[row], flags[row], subqueries, *dense.get(row, ())) for row in rows),
        uncovered=tuple(name for name, *column in zip(subqueries, *flags, strict=True) if not any(column)),
        grid_steps=pareto.grid_steps(len(subqueries), options.grid_steps) if warns else 0,
        warning=pareto.warning(len(subqueries), means, options.beta, options.grid_steps) if warns else "",
    )


def _select(flags: Sequence[Vector], means: Sequence[float], options: CrossmodalOptions, k: int) -> list[int]:
    if options.pareto == "top_k":
        return _best(means, k)
    if options.pareto == "paper":
        return pareto.scalarised(flags, means, options.beta, options.grid_steps)
    return pareto.exact(flags, means)


def _rank_all(entries: Sequence[Hit], subqueries: Sequence[str], scorer: Scorer, k: int) -> Joint:
    if not entries or k < 1:
        return Joint(pictures=len(entries), kept=0, members=(), uncovered=tuple(subqueries))
    cosines = scorer.score(subqueries, [entry.id for entry in entries])
    means = _mean(cosines)
    rows = _best(means, k)
    owners = [max(rows, key=lambda row: float(cosines[row, column])) for column in range(len(subqueries))]
    flags = {row: tuple(owner == row for owner in owners) for row in rows}
    return Joint(
        pictures=len(entries),
        kept=len(entries),
        members=tuple(
            _member(entries[row], flags[row], subqueries, means[row], cosines[row]) for row in rows
        ),
        uncovered=(),
    )


def _member(
    hit: Hit, flags: Vector, subqueries: Sequence[str], score: float = 0.0, cosines: Iterable[float] = ()
) -> Member:
    return Member(
        hit=hit.model_copy(update={"score": round(score, 6)}),
        satisfied=tuple(compress(subqueries, flags)),
        cosines=tuple(round(float(cosine), 6) for cosine in cosines),
    )


def _mean(cosines: Cosines, weights: Sequence[Vector] | None = None) -> list[float]:
    """Return S of each image: the mean of its cosines to the sub-queries that count for it, or to all."""
    import numpy as np

    return [float(mean) for mean in np.average(cosines, axis=1, weights=weights)]


def _lots(hits: Sequence[Hit], seed: int) -> list[float]:
    """Return a random number in 0..1 for each image, determined by seed and id."""
    return [random.Random(f"{seed}/{hit.id}").random() for hit in hits]


def _best(means: Sequence[float], k: int) -> list[int]:
    """Return the rows of the `k` highest in order, ties to the earlier."""
    return sorted(sorted(range(len(means)), key=lambda row: (-means[row], row))[:k])
