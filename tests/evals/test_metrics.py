import math
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleinair.evals import metrics


def binomial_tail(hits: int, n: int, p: float) -> float:
    """Sum P(X >= hits) for X ~ Binomial(n, p) term by term."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))


def test_mean_of_hits_is_their_share() -> None:
    assert metrics.mean([True, False, True, True]) == 0.75


def test_nothing_measured_has_no_figure() -> None:
    assert metrics.mean([]) is None
    assert metrics.ratio(5, 0) is None
    assert metrics.interval([], 0, 1) is None
    assert metrics.interval_of_share(0, 0) is None
    assert metrics.calibration_error([], []) is None
    assert metrics.estimate([], 0, 1) == {"mean": None, "ci": None, "n": 0}


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (0, 1), (70, 70)])
def test_equal_hits_have_the_exact_interval(hits: int, n: int) -> None:
    value = hits / n
    assert metrics.interval([value] * n, 0, 1) == pytest.approx(metrics.interval_of_share(hits, n))


def test_the_score_interval_is_that_of_wilsons_formula() -> None:
    assert metrics.wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert metrics.wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "n"), [(3, 10), (1, 70), (35, 70)])
def test_exact_interval_has_tails_of_2_5_percent(hits: int, n: int) -> None:
    ci = metrics.interval_of_share(hits, n)
    assert ci is not None
    assert binomial_tail(hits, n, ci[0]) == pytest.approx(0.025)
    assert 1 - binomial_tail(hits + 1, n, ci[1]) == pytest.approx(0.025)


def test_equal_differences_have_a_symmetric_interval() -> None:
    assert metrics.interval([0.0] * 70, -1, 1) == pytest.approx((-0.0513, 0.0513), abs=1e-4)


def test_bootstrap_is_near_the_brute_force_percentiles() -> None:
    """Every one of the 6**6 resamples of a symmetric sample, against 9,999 random ones."""
    sample = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    means = sorted(sum(resample) / 6 for resample in product(sample, repeat=6))
    ci = metrics.interval(sample, 0, 1)
    assert ci is not None
    assert ci[0] == pytest.approx(means[int(0.025 * len(means))], abs=0.04)
    assert ci[1] == pytest.approx(means[int(0.975 * len(means))], abs=0.04)


def test_same_seed_same_interval() -> None:
    values = [float(random.Random(n).random() < 0.3) for n in range(70)]
    assert metrics.interval(values, 0, 1, 5) == metrics.interval(values, 0, 1, 5)


def test_interval_has_about_its_nominal_coverage() -> None:
    rng, covered = random.Random(1), 0
    for _ in range(60):
        ci = metrics.interval([float(rng.random() < 0.8) for _ in range(40)], 0, 1)
        assert ci is not None
        covered += ci[0] <= 0.8 <= ci[1]
    assert covered >= 51  # of 60; a true coverage of 95 % falls below with a chance of 1 in 300


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_interval_contains_the_mean_and_stays_in_range(hits: list[bool]) -> None:
    ci = metrics.interval([float(hit) for hit in hits], 0, 1)
    assert ci is not None
    assert 0 <= ci[0] <= sum(hits) / len(hits) <= ci[1] <= 1


def test_estimate_has_mean_interval_and_n() -> None:
    values = [0.0, 1.0, 1.0, 1.0]
    ci = metrics.interval(values, 0, 1, 5)
    assert ci is not None
    assert metrics.estimate(values, 0, 1, seed=5, name="gain") == {"gain": 0.75, "ci": list(ci), "n": 4}


def test_values_that_agree_within_a_group_count_as_one_value_each() -> None:
    """Ten copies of each value in one group leave the interval, a multiple of 1/30, about as it is."""
    values = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    copies = [value for value in values for _ in range(10)]
    groups = [str(value) for value in copies]
    expected = metrics.interval(values, 0, 1, 3)
    assert metrics.interval(copies, 0, 1, 3, groups) == pytest.approx(expected, abs=0.04)
    treated_as_independent = metrics.interval(copies, 0, 1, 3)
    assert treated_as_independent is not None
    assert treated_as_independent[1] - treated_as_independent[0] < 0.25


def test_every_value_in_a_group_of_its_own_is_the_plain_bootstrap() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert metrics.interval(values, 0, 1, 3, range(5)) == metrics.interval(values, 0, 1, 3)


def test_the_interval_by_groups_has_about_its_nominal_coverage() -> None:
    """30 groups of 2 to 8 values that agree within a group: a plain bootstrap covers 6 of 10."""
    rng, covered, plain = random.Random(2), 0, 0
    for _ in range(60):
        sizes = [rng.randint(2, 8) for _ in range(30)]
        groups = [group for group, size in enumerate(sizes) for _ in range(size)]
        hits = [float(rng.random() < 0.7) for _ in sizes]
        values = [hits[group] for group in groups]
        ends, independent = metrics.interval(values, 0, 1, 0, groups), metrics.interval(values, 0, 1)
        assert ends is not None
        assert independent is not None
        covered += ends[0] <= 0.7 <= ends[1]
        plain += independent[0] <= 0.7 <= independent[1]
    assert covered >= 50
    assert plain < 48


def test_groups_of_equal_means_have_the_interval_of_so_many_values() -> None:
    expected = metrics.interval_of_share(12, 12)
    assert metrics.interval([1.0] * 70, 0, 1, 0, [n % 12 for n in range(70)]) == pytest.approx(expected)
    of_one_group = metrics.interval([0.0, 1.0, 1.0, 0.0], 0, 1, 0, ["wren"] * 4)
    assert of_one_group == pytest.approx((0.5 - 0.4875, 0.5 + 0.4875))


def test_the_ends_stay_in_range() -> None:
    assert metrics.interval([1.1, 1.1], 0, 1) == pytest.approx((1.1 * 0.025**0.5, 1))


def test_an_estimate_by_groups_has_their_number() -> None:
    estimate = metrics.estimate([0.0, 1.0, 1.0, 1.0], 0, 1, groups=["finch", "finch", "wren", "wren"])
    assert (estimate["n"], estimate["groups"]) == (4, 2)
    assert "groups" not in metrics.estimate([0.0, 1.0], 0, 1)


def test_a_group_for_each_value_is_required() -> None:
    with pytest.raises(ValueError, match="zip"):
        metrics.interval([0.0, 1.0], 0, 1, 0, ["wren"])


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        metrics.calibration([1.0], [])


def test_calibration_error_of_a_known_case() -> None:
    """Two bins: belief .95 is true in 1 of 2, belief .15 in 0 of 2: (2 · .45 + 2 · .15) / 4."""
    error = metrics.calibration_error([0.95, 0.95, 0.15, 0.15], [True, False, False, False])
    assert error == pytest.approx(0.3)


def test_certain_and_right_is_calibrated() -> None:
    assert metrics.calibration_error([0.0, 1.0, 1.0], [False, True, True]) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_equals_the_sum_over_bins(pairs: list[tuple[float, bool]]) -> None:
    expected = 0.0
    for number in range(10):
        low, high = number / 10, (number + 1) / 10
        inside = [(b, t) for b, t in pairs if low <= b < high or (number == 9 and b == 1)]
        expected += abs(sum(b - t for b, t in inside)) / len(pairs)
    beliefs, true = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert metrics.calibration_error(beliefs, true) == pytest.approx(expected, abs=1e-9)
