import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pleinair.evals.cases import TIERS, make_cases
from pleinair.evals.metrics import interval
from pleinair.evals.report import (
    accuracies,
    judge_rendered,
    percent,
    plain,
    plot,
    plot_examples,
    summarise,
    write_markdown,
)
from pleinair.evals.run import GRAPHS, Judgement, Result
from pleinair.tools.images.reading import read_picture
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Picture, Usage

CASES = make_cases(80, 4)
COMMAND = "python -m pleinair.evals pocket --prompts 80 --seed 4"


def make_results(picture: Picture | None = None) -> list[Result]:
    """Return results in which the loop is right more often than ImageRAG, and that more than the base."""
    rng, results = random.Random(1), []
    for case in CASES:
        for column, chance in zip(GRAPHS, (0.2, 0.5, 0.5, 0.6, 0.8, 0.9), strict=True):
            right = rng.random() < chance
            judgements = (Judgement(True, 0.9, right),) if column == "pleinair" else ()
            ending = "accepted" if column == "pleinair" else "stopped"
            usage = Usage(images=2, mllm_calls=3)
            shown = dict.fromkeys(case.species, right)
            results.append(Result(case, column, ending, "", shown, usage, 0.5, judgements, picture))
    return results


RESULTS = make_results()
FIGURES: dict[str, Any] = json.loads(json.dumps(summarise(RESULTS, prompts=80, seed=4, command=COMMAND)))
PAGE = write_markdown(FIGURES)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("column", GRAPHS)
def test_every_accuracy_has_its_interval_and_n(tier: str, column: str) -> None:
    score = FIGURES[tier][column]
    assert set(score) == {"accuracy", "ci", "n", "groups"}
    assert 0 <= score["ci"][0] <= score["accuracy"] <= score["ci"][1] <= 1
    assert score["n"] == 20


def test_intervals_are_over_species_whose_number_is_beside_them() -> None:
    rare = [result for result in RESULTS if (result.case.tier, result.column) == ("rare", "imagerag")]
    species = [result.case.species[0] for result in rare]
    score = FIGURES["rare"]["imagerag"]
    assert score["groups"] == len(set(species)) < score["n"]
    assert score["ci"] == pytest.approx(interval([r.right for r in rare], 0, 1, 4, species))
    assert score["ci"] != pytest.approx(interval([r.right for r in rare], 0, 1, 4))
    assert "| n | species |" in PAGE


def test_accuracy_counts_the_right_images() -> None:
    right = [r.right for r in RESULTS if (r.case.tier, r.column) == ("rare", "imagerag")]
    assert FIGURES["rare"]["imagerag"]["accuracy"] == sum(right) / 20


def test_gain_is_the_difference_of_the_accuracies() -> None:
    gain = FIGURES["gains"]["known"]
    difference = FIGURES["known"]["pleinair"]["accuracy"] - FIGURES["known"]["base"]["accuracy"]
    assert gain["pleinair - base"]["gain"] == pytest.approx(difference)


def test_critic_is_scored_against_the_judge() -> None:
    true = [j.true for r in RESULTS for j in r.judgements]
    assert FIGURES["critic"]["precision"] == pytest.approx(sum(true) / len(true))
    assert FIGURES["critic"]["recall"] == 1
    assert FIGURES["critic"]["n"] == 80


def test_costs_are_per_run_and_per_image() -> None:
    costs = FIGURES["graphs"]["pleinair"]
    assert (costs["images_per_run"], costs["mllm_calls_per_run"], costs["seconds_per_run"]) == (2, 3, 0.5)
    assert costs["images_per_accepted"] == 2
    assert costs["endings"] == {"accepted": 80}
    assert FIGURES["graphs"]["base"]["images_per_accepted"] is None
    assert FIGURES["seconds_per_run"] == 0.5


def test_figures_contain_command_seed_and_versions() -> None:
    assert (FIGURES["prompts"], FIGURES["seed"], FIGURES["command"]) == (80, 4, COMMAND)
    assert {"pleinair", "torch", "python"} <= set(FIGURES["versions"])


def test_page_states_n_seed_command_and_versions() -> None:
    assert "80 prompts, seed 4" in PAGE
    assert COMMAND in PAGE
    assert f"torch {FIGURES['versions']['torch']}" in PAGE
    assert "miniature world" in PAGE
    assert "95 % intervals" in PAGE


def test_page_shows_every_accuracy_with_its_interval() -> None:
    for tier in TIERS:
        for column in GRAPHS:
            score = FIGURES[tier][column]
            assert percent(score["accuracy"], score["ci"]) in PAGE


def test_figures_of_fewer_tiers_still_have_their_table() -> None:
    older = {name: figure for name, figure in FIGURES.items() if name != "three"}
    assert [line.split(" | ")[0] for line in accuracies(older)][3:] == ["| rare", "| known", "| two"]


class LongNames:
    """Judge that finds species of long names only."""

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        assert image.size == (96, 96)
        return {name: len(name) > 5 for name in names}


def test_the_renderers_images_of_all_cases_are_judged() -> None:
    rendered = judge_rendered(CASES, LongNames(), 4)
    for tier in TIERS:
        score = rendered[tier]["renderer"]
        right = [all(len(name) > 5 for name in case.species) for case in CASES if case.tier == tier]
        assert (score["n"], score["accuracy"]) == (20, sum(right) / 20)
    page = write_markdown(FIGURES | {"rendered": rendered})
    assert "renderer, as a perfect" in page and "| tier | renderer | n | species |" in page
    assert "renderer" not in PAGE


def test_no_judgements_make_dashes_not_errors() -> None:
    others = [result for result in RESULTS if result.column != "pleinair"]
    failed = [Result(case, "pleinair", "failed", "no", {}, Usage(), 0.1, ()) for case in CASES]
    page = write_markdown(summarise(others + failed, prompts=80, seed=4, command=COMMAND))
    assert 'precision of "present": –' in page


def test_a_result_is_serialised_as_json() -> None:
    line = json.loads(json.dumps(plain(RESULTS[2])))
    assert line["case"]["prompt"] == CASES[0].prompt
    assert (line["column"], line["right"]) == (RESULTS[2].column, RESULTS[2].right)


def test_plots_are_images(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "pictures")
    results = make_results(store.put(Image.linear_gradient("L").resize((64, 64))))
    paths = [*plot(FIGURES, tmp_path), plot_examples(results, store, tmp_path / "examples.png")]
    assert all(read_picture(path.read_bytes()).width > 300 for path in paths)
