"""The Pareto set by definition, by grouping and by the paper's algorithm: the same images."""

from itertools import product
from math import comb
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pleinair.tools.retrieval.crossmodal.pareto import (
    FINEST_GRID,
    beta_limit,
    dominates,
    exact,
    grid,
    grid_needed,
    grid_steps,
    scalarised,
    warning,
)
from pleinair.tools.retrieval.crossmodal.sparse import Vector

Corpus = tuple[list[Vector], list[float]]
BOTH, FIRST, SECOND = (True, True), (True, False), (False, True)


@st.composite
def corpora(draw: Any, most: int = 5, lowest: int = 0) -> Corpus:
    """Draw up to 40 images of one to `most` sub-queries; scores are thousandths."""
    n = draw(st.integers(1, most))
    vectors = st.tuples(*[st.booleans()] * n).filter(any)
    images = draw(st.lists(st.tuples(vectors, st.integers(lowest, 1000)), min_size=1, max_size=40))
    return [flags for flags, _ in images], [score / 1000 for _, score in images]


def by_definition(vectors: list[Vector], scores: list[float]) -> list[int]:
    """Return what nothing dominates, and of equal vectors the best score, the earlier on a tie."""
    free = [row for row, flags in enumerate(vectors) if not any(dominates(other, flags) for other in vectors)]

    def beaten(row: int) -> bool:
        rivals = [other for other in free if vectors[other] == vectors[row] and other != row]
        return any((scores[other], -other) > (scores[row], -row) for other in rivals)

    return [row for row in free if not beaten(row)]


def test_an_image_of_everything_dominates_all() -> None:
    assert exact([FIRST, BOTH, SECOND], [0.9, 0.1, 0.9]) == [1]


def test_within_a_vector_the_best_score_wins_and_a_tie_goes_to_the_earlier() -> None:
    assert exact([FIRST, SECOND, FIRST, SECOND], [0.2, 0.5, 0.3, 0.5]) == [1, 2]


def test_dominance_compares_vectors_and_not_scores() -> None:
    assert dominates(BOTH, FIRST) and not dominates(FIRST, BOTH)
    assert not dominates(FIRST, SECOND) and not dominates(FIRST, FIRST)


@given(corpora())
def test_grouping_agrees_with_the_definition(corpus: Corpus) -> None:
    vectors, scores = corpus
    rows = exact(vectors, scores)
    assert rows == by_definition(vectors, scores)
    n = len(vectors[0])
    assert len(rows) <= comb(n, n // 2)
    covered = [any(flags) for flags in zip(*vectors, strict=True)]
    assert [any(flags) for flags in zip(*(vectors[row] for row in rows), strict=True)] == covered


@given(corpora(lowest=-1000), st.floats(0.05, 0.95))
def test_algorithm_1_agrees_on_a_fine_grid_under_the_bound(corpus: Corpus, share: float) -> None:
    vectors, scores = corpus
    limit = beta_limit(len(vectors[0]), scores)
    beta = share * (limit if limit < float("inf") else 1.0)
    assert warning(len(vectors[0]), scores, beta) == ""
    assert scalarised(vectors, scores, beta) == exact(vectors, scores)


@given(corpora(most=3), st.integers(0, 6))
def test_a_finer_grid_changes_nothing(corpus: Corpus, more: int) -> None:
    vectors, scores = corpus
    n = len(vectors[0])
    steps = grid_needed(n) + more
    limit = beta_limit(n, scores, steps)
    assume(limit < float("inf"))
    assert scalarised(vectors, scores, limit / 2, steps) == exact(vectors, scores)


def test_a_coarse_grid_misses_an_image_and_warns() -> None:
    vectors = [FIRST + (False,), (False, True, True)]
    scores = [0.1, 0.9]
    assert exact(vectors, scores) == [0, 1]
    assert scalarised(vectors, scores, beta=0.015, steps=3) == [1]
    assert "a grid of 3 steps is coarser than the 5 that 3" in warning(3, scores, 0.015, steps=3)
    assert scalarised(vectors, scores, beta=0.015) == [0, 1]


def test_a_large_beta_returns_a_dominated_image_and_warns() -> None:
    vectors, scores = [BOTH, FIRST], [0.1, 1.0]
    assert scalarised(vectors, scores, beta=0.5) == [1]
    assert warning(2, scores, beta=0.5).startswith(
        "algorithm 1 may miss the Pareto set: beta 0.5 is not under"
    )
    assert scalarised(vectors, scores, beta=0.015) == exact(vectors, scores) == [0]


def test_the_published_beta_is_within_the_bound_up_to_five_subqueries() -> None:
    assert [n for n in range(1, 8) if not warning(n, [1.0], 0.015)] == [1, 2, 3, 4, 5]


def test_the_grid_has_every_positive_split() -> None:
    for n, steps in product((1, 2, 3), (3, 5)):
        points = list(grid(n, steps))
        assert {sum(point) for point in points} <= {steps}
        assert min(min(point) for point in points) == (1 if n > 1 else steps)
        assert len(set(points)) == len(points) == comb(steps - 1, n - 1)
    assert [grid_needed(n) for n in range(2, 7)] == [3, 5, 8, 11, 15]


def test_a_grid_without_a_point_is_raised_to_the_number_of_subqueries_and_says_so() -> None:
    vectors = [(True, False, True), (False, True, False)]
    assert scalarised(vectors, [0.5, 0.5], 0.015, steps=1) == scalarised(vectors, [0.5, 0.5], 0.015, steps=3)
    assert scalarised(vectors, [0.5, 0.5], 0.015, steps=1) == [0]
    assert warning(3, [0.5], 0.015, steps=2) == (
        "the grid has 3 steps instead of 2, one for each sub-query; algorithm 1 may miss the Pareto set: "
        "a grid of 3 steps is coarser than the 5 that 3 sub-queries can need"
    )
    assert [grid_steps(n, 2) for n in (1, 2, 3, 30)] == [2, 2, 3, 30]
    assert grid_steps(3) == 5


def test_images_are_compared_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, scores = list(product((True, False), repeat=4))[:-1], [0.5] * 15
    at_once = scalarised(vectors[1:], scores[1:], 0.015)
    monkeypatch.setattr("pleinair.tools.retrieval.crossmodal.pareto._CELLS", 10)
    assert scalarised(vectors[1:], scores[1:], 0.015) == at_once == exact(vectors[1:], scores[1:])


def test_no_number_of_subqueries_needs_too_many_points() -> None:
    assert max(comb(FINEST_GRID - 1, n - 1) for n in range(1, 17)) <= 200_000 < comb(FINEST_GRID, 10)
    assert scalarised([(True,) * 8, (True,) * 7 + (False,)], [0.5, 0.9], 0.001) == [0]
    assert "a grid of 21 steps is coarser than the 24" in warning(8, [0.5], 0.001)


def test_an_empty_library_has_an_empty_set() -> None:
    assert exact([], []) == scalarised([], [], 0.015) == []
