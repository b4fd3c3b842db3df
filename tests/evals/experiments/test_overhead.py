import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.experiments.overhead import measure


def test_the_ratio_is_of_a_plausible_size() -> None:
    ratio, seconds = measure(5)
    assert 0.5 < ratio < 20  # no more: the figure depends on the machine
    assert seconds > 0


def test_the_command_prints_both_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overhead", "--runs", "2"]) == 0
    output = capsys.readouterr().out
    assert "loop / plain calls = " in output
    assert "import of the loop / of LangGraph = 0." in output


def test_a_users_error_is_a_message_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pocket", "--prompts", "3"]) == 1
    assert "multiple of 4" in capsys.readouterr().err
