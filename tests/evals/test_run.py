"""Cases run through the real graphs with scripted engines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fake_engines import decomposition, make_context, rows

from pleinair.agent.context import Context
from pleinair.evals.cases import Case
from pleinair.evals.run import context_of, load_graphs, run_case, run_cases
from pleinair.tools.types import ModelFault

CASE = Case("rare-0", "rare", "a velmora finch", ("velmora finch",), 3)
GRAPHS = load_graphs()


class YesJudge:
    """Judge that finds every species in every image."""

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        return dict.fromkeys(names, True)


class NoJudge:
    """Judge that finds nothing."""

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        return dict.fromkeys(names, False)


def critic_policy(present: bool) -> Any:
    """Return a policy that finds the case's species, and an extra concept, present or missing."""

    def policy(schema: str, payload: dict[str, Any], images: int) -> dict[str, Any] | str:
        if schema == "Decomposition":
            return decomposition("velmora finch", "snow")
        return rows(payload, lambda name: present)

    return policy


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path, critic_policy(True))


def test_the_judge_decides_what_is_right(context: Context) -> None:
    assert run_case(CASE, "base", GRAPHS["base"], context, YesJudge()).right
    assert not run_case(CASE, "base", GRAPHS["base"], context, NoJudge()).right


def test_the_critic_accepts_and_the_judge_decides_what_is_right(context: Context) -> None:
    result = run_case(CASE, "pleinair", GRAPHS["pleinair"], context, NoJudge())
    assert (result.ending, result.right) == ("accepted", False)


def test_only_rows_about_species_are_compared(context: Context) -> None:
    (judgement,) = run_case(CASE, "pleinair", GRAPHS["pleinair"], context, NoJudge()).judgements
    assert (judgement.present, judgement.belief, judgement.true) == (True, 0.9, False)


def test_every_attempt_is_compared(tmp_path: Path) -> None:
    context = make_context(tmp_path, critic_policy(False))
    result = run_case(CASE, "pleinair", GRAPHS["pleinair"], context, YesJudge())
    assert len(result.judgements) == result.usage.images == 3
    assert {(j.present, round(j.belief, 6), j.true) for j in result.judgements} == {(False, 0.1, True)}


def test_costs_are_counted(context: Context) -> None:
    result = run_case(CASE, "pleinair", GRAPHS["pleinair"], context, YesJudge())
    assert (result.usage.images, result.usage.mllm_calls) == (1, 2)
    assert result.seconds > 0


def test_an_engines_error_is_a_wrong_image(tmp_path: Path) -> None:
    def policy(schema: str, payload: dict[str, Any], images: int) -> dict[str, Any] | str:
        raise ModelFault("no such luck")

    result = run_case(CASE, "pleinair", GRAPHS["pleinair"], make_context(tmp_path, policy), YesJudge())
    assert (result.ending, result.reason, result.right) == ("failed", "no such luck", False)


def test_a_bug_raises(tmp_path: Path) -> None:
    def policy(schema: str, payload: dict[str, Any], images: int) -> dict[str, Any] | str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_case(CASE, "pleinair", GRAPHS["pleinair"], make_context(tmp_path, policy), YesJudge())


def test_crossmodal_scores_as_published_and_in_another_column_as_the_pocket_profile(context: Context) -> None:
    assert context_of("crossmodal", context).crossmodal.scored == "all"
    assert context_of("crossmodal_satisfied", context).crossmodal.scored == "satisfied"
    assert context_of("pleinair", context) is context
    assert {GRAPHS[column].name for column in ("crossmodal", "crossmodal_satisfied")} == {"crossmodal"}


def test_every_case_runs_through_every_graph_with_the_same_noise(context: Context) -> None:
    graphs = {column: GRAPHS[column] for column in ("base", "pleinair")}
    other = Case("rare-1", "rare", "a velmora finch", ("velmora finch",), 4)
    results = list(run_cases([CASE, other], graphs, context, YesJudge()))
    assert [result.column for result in results] == ["base", "pleinair"] * 2
    assert [result.picture for result in results[::2]] == [result.picture for result in results[1::2]]
    assert [result.case.id for result in results] == ["rare-0", "rare-0", "rare-1", "rare-1"]
