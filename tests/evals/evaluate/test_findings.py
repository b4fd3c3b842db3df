"""The verdict is a field that follows from the interval, and the sentence follows from the field."""

from dataclasses import replace

import pytest

from pleinair.evals.evaluate.findings import (
    Change,
    Findings,
    Gap,
    Harm,
    Verdict,
    change_of,
    harm_of,
    least_seeds,
    verdict_of,
)
from pleinair.evals.evaluate.report import (
    Facts,
    cautions,
    change_text,
    explanations,
    first_sentence,
    harm_text,
)

SHARE, COSINE = (0.0, 1.0), (-1.0, 1.0)
FACTS = Facts("", "library", 9, "captions", (), 0, 3, 0, "generator", "encoder", "mllm", "pocket", 0, {})


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


@pytest.mark.parametrize("sign", [1, -1])
def test_fewer_than_6_concepts_decide_nothing(sign: int) -> None:
    """By chance 5 concepts all gain, or all lose, in 1 of 16 cases."""
    assert verdict_of(Change(sign, (sign * 0.5, sign * 0.5), 15, 5), SHARE) is Verdict.UNDECIDED
    assert verdict_of(Change(sign, (sign * 0.5, sign * 0.5), 18, 6), SHARE) is not Verdict.UNDECIDED


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
    return Findings(verdict, "species", "species, oracle", True, 100.0, gain, (), {}, harm, (), (), 3)


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


def test_the_first_sentence_says_where_it_harms_and_what_may_be_chance() -> None:
    oak, elm = Harm("oak", -1, 12, 12, True), Harm("elm", -0.3, 2, 3, False)
    sentence = first_sentence(findings(Verdict.HELPS, oak, elm))
    assert sentence.endswith("lowers the score of 2 of 40 concepts, 1 beyond chance: oak, elm.")
    assert first_sentence(findings(Verdict.HELPS, elm)).endswith("1 of 40 concepts, none beyond chance: elm.")
    single = first_sentence(findings(Verdict.HELPS, Harm("elm", -1, 1, 1, False)))
    assert single.endswith("1 of 40 concepts, by one prompt each, which may be chance: elm.")


def test_without_a_pair_the_first_sentence_states_no_figure() -> None:
    nothing = replace(findings(Verdict.UNDECIDED), gain=Change(0, None, 0, 0))
    assert "no prompt has an image" in first_sentence(nothing)
    assert "points" not in first_sentence(nothing)


def test_harm_is_beyond_chance_by_a_sign_test_for_all_concepts_together() -> None:
    others = {str(number): [0.0] for number in range(38)}
    harm = harm_of({"few": [-1.0] * 3, "many": [-0.1] * 10, **others})
    assert [(each.concept, each.is_certain) for each in harm] == [("many", True), ("few", False)]
    assert harm_of({"few": [-1.0] * 3, "one higher": [-0.1] * 9 + [0.1], **others})[0].is_certain is False
    assert not harm_of({"none": [-1.0, 1.0], "equal": [0.0]})


@pytest.mark.parametrize("concepts", [1, 5, 20, 40, 41, 1000])
def test_the_least_seeds_are_those_from_which_harm_can_be_certain(concepts: int) -> None:
    others = {str(number): [0.0] for number in range(concepts - 1)}
    certain = [harm_of({"oak": [-0.1] * n, **others})[0].is_certain for n in range(1, 20)]
    assert certain.index(True) + 1 == least_seeds(concepts)


def test_harm_over_one_prompt_is_said_to_show_nothing() -> None:
    assert (
        harm_text(Harm("elm", -1, 1, 1, False), 100)
        == "elm: −100 points in its only prompt, which shows nothing."
    )
    text = harm_text(Harm("elm", -1 / 3, 1, 3, False), 100)
    assert text == "elm: −33 points, lower in 1 of 3 prompts, which may be chance."


@pytest.mark.parametrize(
    ("concepts", "seeds", "words"),
    [
        (1, 3, ["1 concept: with fewer than 6", "undecided"]),
        (5, 3, ["5 concepts: with fewer than 6"]),
        (9, 3, ["9 of 10"]),
        (29, 3, ["somewhat too narrow"]),
        (40, 1, ["1 prompt of each concept", "--seeds 10"]),
        (40, 10, []),
    ],
)
def test_few_concepts_and_prompts_are_explained(concepts: int, seeds: int, words: list[str]) -> None:
    text = " ".join(cautions(concepts, seeds))
    assert bool(text) == bool(words)
    assert all(word in text for word in words)


def test_a_long_list_names_the_file_that_has_the_rest() -> None:
    gaps = tuple(Gap(f"tree {number}", 1, {"oak": 2}, 3) for number in range(11))
    lines = [*explanations(replace(findings(Verdict.HELPS), gaps=gaps), FACTS)]
    shown = [line for line in lines if line.startswith("Gap: ")]
    assert shown[0] == "Gap: tree 0: retrieved nothing in 1, an image of oak in 2 of 3 prompts."
    assert len(shown) == 9 and shown[-1] == "Gap: 3 more in evaluate.json."


def test_changes_are_points_of_shares_and_numbers_of_cosines() -> None:
    change = Change(-0.0123, (-0.04, 0.002), 40, 40)
    assert change_text(change, 100) == "−1 points [−4, 0]"
    assert change_text(change, 1) == "−0.012 [−0.040, 0.002]"
    assert change_text(replace(change, mean=-0.004), 100) == "0 points [−4, 0]"
    assert change_text(replace(change, mean=-0.0004), 1) == "0.000 [−0.040, 0.002]"
    assert change_text(replace(change, mean=0.0), 100) == "0 points [−4, 0]"
