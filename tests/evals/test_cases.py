from dataclasses import replace

import numpy as np
import pytest

from pleinair.evals.cases import TIERS, Case, Tier, cluster, make_cases, render_case
from pleinair.tools.pocket.catalogue.language.reading import read
from pleinair.tools.pocket.catalogue.species import BY_NAME
from pleinair.tools.types import BadInput

CASES = make_cases(120, 7)
HARD = make_cases(30, 7, ("hard",))


def tiers_of(case: Case) -> list[str]:
    """Return the world's tiers of a case's species, sorted."""
    return sorted(BY_NAME[name].tier for name in case.species)


def test_splits_the_prompts_over_the_tiers() -> None:
    assert [case.tier for case in CASES] == [tier for tier in TIERS for _ in range(30)]


@pytest.mark.parametrize("case", [*CASES, *HARD], ids=lambda case: case.id)
def test_prompt_asks_for_exactly_the_species_in_a_place(case: Case) -> None:
    reading = read(case.prompt)
    assert sorted(mention.name for mention in reading.request.mentions) == sorted(case.species)
    assert reading.request.background
    assert not reading.omitted and not reading.corrected


@pytest.mark.parametrize("tier", ["rare", "known", "novel"])
def test_single_subjects_are_of_the_tier(tier: Tier) -> None:
    assert all(tiers_of(case) == [tier] for case in make_cases(20, 7, (tier,)))


def test_several_subjects_mix_rare_and_known_and_one_is_rare() -> None:
    pairs = [tiers_of(case) for case in CASES if case.tier == "two"]
    assert pairs == [["rare", "rare"], ["known", "rare"]] * 15
    triples = [tiers_of(case).count("rare") for case in CASES if case.tier == "three"]
    assert triples == [3, 2, 1] * 10


def test_subjects_of_a_prompt_differ() -> None:
    assert all(len(set(case.species)) == len(case.species) for case in [*CASES, *HARD])


def test_known_subject_comes_first_and_last() -> None:
    firsts = {BY_NAME[case.species[0]].tier for case in CASES if tiers_of(case) == ["known", "rare"]}
    assert firsts == {"known", "rare"}


def test_some_prompts_state_a_light_or_a_weather() -> None:
    requests = [read(case.prompt).request for case in CASES]
    assert {"sunset", "night"} & {request.light for request in requests}
    assert {"rain", "snowfall", "fog"} & {request.weather for request in requests}


def test_hard_prompts_have_a_rare_or_novel_species_with_a_count_a_size_or_a_relation() -> None:
    assert [tiers_of(case) for case in HARD[:4]] == [
        ["rare"],
        ["novel"],
        ["known", "rare"],
        ["known", "novel"],
    ]
    for case in HARD:
        mention, *others = read(case.prompt).request.mentions
        assert others or mention.count > 1 or mention.size


def test_a_case_is_rendered_with_its_place_light_and_counts() -> None:
    case = Case("hard-0", "hard", "three puffins on a beach at night", ("puffin",), 1)
    image = np.asarray(render_case(case), dtype=float)
    assert (image == np.asarray(render_case(case))).all()
    for other in (
        "a puffin on a beach at night",
        "three puffins on a beach",
        "three puffins in a city at night",
    ):
        assert np.abs(image - np.asarray(render_case(replace(case, prompt=other)))).mean() > 2


def test_a_case_is_grouped_by_its_first_species_that_is_not_known() -> None:
    for case in [*CASES, *HARD]:
        unknown = [name for name in case.species if BY_NAME[name].tier != "known"]
        assert cluster(case) == (unknown or case.species)[0]


def test_same_seed_same_cases() -> None:
    assert make_cases(120, 7) == CASES


def test_other_seed_other_prompts() -> None:
    other = {case.prompt for case in make_cases(120, 8)}
    assert len(other & {case.prompt for case in CASES}) < 20


def test_more_prompts_keep_the_first_ones() -> None:
    assert set(make_cases(40, 7)) < set(CASES)


def test_seeds_of_the_noise_differ() -> None:
    assert len({case.seed for case in CASES}) == len(CASES)


@pytest.mark.parametrize("prompts", [0, -4, 10])
def test_refuses_a_number_that_does_not_split(prompts: int) -> None:
    with pytest.raises(BadInput, match="multiple of 4"):
        make_cases(prompts, 1)


def test_tiers_can_be_chosen() -> None:
    cases = make_cases(4, 7, ("rare", "novel"))
    assert [case.id for case in cases] == ["rare-0", "rare-1", "novel-0", "novel-1"]
    assert set(cases[:2]) < set(CASES)
    with pytest.raises(BadInput, match="prompts = 3"):
        make_cases(3, 0, ("rare", "two"))
