"""The verdict is a field that follows from the interval, and the sentence follows from the field."""

import pytest

from pleinair.evals.evaluate.findings import Change, Findings, Harm, Verdict, change_of, verdict_of
from pleinair.evals.evaluate.report import change_text, first_sentence

SHARE, COSINE = (0.0, 1.0), (-1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "bounds", "verdict"),
    [
        (0.1, 0.3, SHARE, Verdict.HELPS),
        (-0.3, -0.1, SHARE, Verdict.HARMS),
        (-0.08, 0.02, SHARE, Verdict.DOES_NOT_HELP),
        (-0.08, 0.11, SHARE, Verdict.UNDECIDED),
        (-0.01, 0.019, COSINE, Verdict.DOES_NOT_HELP),
        (-0.01, 0.03, COSINE, Verdict.UNDECIDED),
        (0.0, 0.04, SHARE, Verdict.DOES_NOT_HELP),
    ],
)
def test_the_verdict_follows_from_the_interval(
    low: float, high: float, bounds: tuple[float, float], verdict: Verdict
) -> None:
    assert verdict_of(Change((low + high) / 2, (low, high), 40, 40), bounds) is verdict


def test_few_concepts_never_conclude_that_nothing_is_gained() -> None:
    assert verdict_of(Change(0, (-0.01, 0.01), 9, 9), SHARE) is Verdict.UNDECIDED
    assert verdict_of(Change(0, None, 0, 0), SHARE) is Verdict.UNDECIDED


def test_pairs_are_of_equal_prompts_and_the_interval_is_by_concept() -> None:
    concepts = [name for name in "abcdefgh" for _ in range(6)]
    after = {number: float(number // 6 < 4) for number in range(48)} | {99: 1.0}
    change = change_of(after, dict.fromkeys(range(47), 0.0), concepts, SHARE, 0)
    assert (change.n, change.concepts) == (47, 8)
    assert change.mean == pytest.approx(24 / 47)
    assert change.interval is not None
    assert change.interval[1] - change.interval[0] > 0.4  # 8 concepts; 47 independent pairs would have 0.28


def findings(verdict: Verdict, *harm: Harm) -> Findings:
    gain = Change(0.62, (0.55, 0.69), 120, 40)
    return Findings(verdict, "species, oracle", True, 100.0, gain, (), {}, harm, (), (), 3)


@pytest.mark.parametrize(
    ("verdict", "begin"),
    [
        (Verdict.HELPS, "Retrieval helps: +62 points [55, 69] of"),
        (Verdict.HARMS, "Retrieval harms: "),
        (Verdict.DOES_NOT_HELP, "Retrieval does not help: "),
        (Verdict.UNDECIDED, "Undecided whether retrieval helps: "),
    ],
)
def test_the_first_sentence_is_the_verdict(verdict: Verdict, begin: str) -> None:
    sentence = first_sentence(findings(verdict))
    assert sentence.startswith(begin)
    assert "(n = 40 concepts, 3 seeds); it lowers the score of no concept." in sentence


def test_the_first_sentence_says_where_it_harms() -> None:
    worse = [
        Harm("oak", Change(-1, (-1, -0.2), 3, 1), True),
        Harm("elm", Change(-0.3, (-1, 0.4), 3, 1), False),
    ]
    sentence = first_sentence(findings(Verdict.HELPS, *worse))
    assert sentence.endswith("lowers the score of 2 of 40 concepts (1 with an interval below 0): oak, elm.")


def test_changes_are_points_of_shares_and_numbers_of_cosines() -> None:
    change = Change(-0.0123, (-0.04, 0.002), 40, 40)
    assert change_text(change, 100) == "−1 points [−4, 0]"
    assert change_text(change, 1) == "−0.012 [−0.040, 0.002]"
