"""The leak check's own check: on few scenes, with the defaults that it is to set."""

import pytest

from pleinair.evals.experiments.leak import auc, interval_of_auc, main, marks, summarise
from pleinair.tools.pocket.world import held_out_rng


def test_every_measure_tells_leaks_from_others() -> None:
    lines = {
        (one.measure, one.against): one
        for one in summarise([mark for number in range(24) for mark in marks(held_out_rng(number))])
    }
    assert {one.n for one in lines.values()} == {24}
    for against in ("as asked", "asked as the reference has it"):
        for measure in ("background", "background, no boxes"):
            one = lines[measure, against]
            assert one.auc > 0.95 and one.found >= 20 and one.alarms <= 2
    assert lines["copied", "drawn anew, another background"].auc > 0.95
    assert lines["copied", "drawn anew, same background"].alarms <= 3
    assert lines["pose", "20 to 60 degrees off"].auc > 0.85
    assert lines["dHash", "drawn anew, same background"].found == 0  # it has no threshold


def test_the_area_counts_pairs_and_halves_ties() -> None:
    assert auc([3, 4], [1, 2]) == 1
    assert auc([1, 2], [1, 2]) == 0.5
    assert auc([0, 0], [1, 0]) == 0.25


@pytest.mark.parametrize(("value", "text"), [(1.0, "1.000 [1.000, 1.000]"), (0.9, "0.900 [0.869, 0.931]")])
def test_an_area_comes_with_its_interval(value: float, text: str) -> None:
    """The second by hand: q1 = .81818, q2 = .85263, variance 10.202 / 200², 1.96 standard errors .0313."""
    assert interval_of_auc(value, 200) == text


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--each", "2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("measure | against | n | AUC")
    assert sum(line.startswith("background") for line in told) == 6
    assert "ms a reference, 1024 pixels a side" in told[-1]
