"""Validation of the leak check, on few scenes and with the default thresholds."""

import pytest

from pleinair.evals.experiments.leak import auc, interval_of_auc, main, samples, summarise
from pleinair.tools.pocket.training.cases import held_out_rng


def test_every_measure_separates_leaks_from_others() -> None:
    table = summarise(sample for number in range(24) for sample in samples(held_out_rng(number)))
    scores = {(score.measure, score.against): score for score in table.itertuples()}
    assert {score.n for score in scores.values()} == {24}
    for against in ("as asked", "asked as the reference has it"):
        for measure in ("background", "background, no boxes"):
            score = scores[measure, against]
            assert score.auc > 0.95 and score.detected >= 20 and score.alarms <= 2
    assert scores["copied", "another image, another background"].auc > 0.95
    assert scores["copied", "another image, same background"].alarms <= 8  # scenes vary little
    assert scores["pose", "20 to 60 degrees off"].auc > 0.85
    assert scores["dHash", "another image, same background"].detected == 0  # it has no threshold


def test_the_area_counts_pairs_and_halves_ties() -> None:
    assert auc([3, 4], [1, 2]) == 1
    assert auc([1, 2], [1, 2]) == 0.5
    assert auc([0, 0], [1, 0]) == 0.25


@pytest.mark.parametrize(("value", "text"), [(1.0, "1.000 [1.000, 1.000]"), (0.9, "0.900 [0.869, 0.931]")])
def test_an_area_comes_with_its_interval(value: float, text: str) -> None:
    """The second by hand: q1 = .81818, q2 = .85263, variance 10.202 / 200², 1.96 standard errors .0313."""
    assert interval_of_auc(value, 200) == text


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--each", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("measure | against | n | AUC")
    assert sum(line.startswith("background") for line in lines) == 6
    assert "ms a reference, 1024 pixels a side" in lines[-1]
