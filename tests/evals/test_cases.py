import pytest
from support.species import species_named

from pleinair.evals.cases import TIERS, Case, cluster, make_cases
from pleinair.tools.pocket.invented.prompts import parse_prompt
from pleinair.tools.types import BadInput

CASES = make_cases(90, 7)


def tier_of(case: Case) -> list[str]:
    """Return the world's tiers of a case's species, sorted."""
    return sorted(species_named(name).tier for name in case.species)


def test_splits_the_prompts_over_the_tiers() -> None:
    assert [case.tier for case in CASES] == [tier for tier in TIERS for _ in range(30)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_prompt_asks_for_exactly_the_species(case: Case) -> None:
    assert parse_prompt(case.prompt).subjects == case.species


@pytest.mark.parametrize("tier", ["rare", "known"])
def test_single_subjects_are_of_the_tier(tier: str) -> None:
    assert all(tier_of(case) == [tier] for case in CASES if case.tier == tier)


def test_two_subjects_mix_rare_and_known() -> None:
    pairs = [tier_of(case) for case in CASES if case.tier == "two"]
    assert pairs == [["rare", "rare"], ["known", "rare"]] * 15


def test_two_subjects_differ() -> None:
    assert all(len(set(case.species)) == len(case.species) for case in CASES)


def test_known_subject_comes_first_and_last() -> None:
    firsts = {species_named(case.species[0]).tier for case in CASES if tier_of(case) == ["known", "rare"]}
    assert firsts == {"known", "rare"}


def test_a_case_is_grouped_by_its_rare_species() -> None:
    for case in CASES:
        rare = [name for name in case.species if species_named(name).tier == "rare"]
        assert cluster(case) == (rare or case.species)[0]


def test_same_seed_same_cases() -> None:
    assert make_cases(90, 7) == CASES


def test_other_seed_other_prompts() -> None:
    other = {case.prompt for case in make_cases(90, 8)}
    assert len(other & {case.prompt for case in CASES}) < 20


def test_more_prompts_keep_the_first_ones() -> None:
    assert set(make_cases(30, 7)) < set(CASES)


def test_seeds_of_the_noise_differ() -> None:
    assert len({case.seed for case in CASES}) == len(CASES)


@pytest.mark.parametrize("prompts", [0, -3, 10])
def test_refuses_a_number_that_does_not_split(prompts: int) -> None:
    with pytest.raises(BadInput, match="multiple of 3"):
        make_cases(prompts, 1)


def test_tiers_can_be_chosen() -> None:
    cases = make_cases(4, 7, ("rare", "novel"))
    assert [case.id for case in cases] == ["rare-0", "rare-1", "novel-0", "novel-1"]
    assert set(cases[:2]) < set(CASES)
    with pytest.raises(BadInput, match="prompts = 3"):
        make_cases(3, 0, ("rare", "two"))
