import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.experiments.overhead import measure


def test_the_loop_costs_more_than_its_verbs_but_not_out_of_proportion() -> None:
    ratio, seconds = measure(5)
    assert 0.5 < ratio < 20  # no gate: the figure depends on the machine
    assert seconds > 0


def test_prints_a_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overhead", "--runs", "2"]) == 0
    told = capsys.readouterr().out
    assert "loop / plain calls = " in told
    assert "import of the loop / of LangGraph = 0." in told


def test_what_the_user_can_act_on_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pocket", "--prompts", "4"]) == 1
    assert "multiple of 3" in capsys.readouterr().err
