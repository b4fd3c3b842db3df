"""The model cards of the pocket models match the models and the world."""

import shutil
from pathlib import Path

import pytest

from pleinair.evals.pocket.models import MODELS, card_of, main
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.invented.world import fingerprint
from pleinair.tools.pocket.training.card import HEADING, figures_section, replace_figures

CARDS = [card_of(model) for model in MODELS]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{card.parent.name}/{card.name}")
def test_a_model_card_was_measured_in_this_world(card: Path) -> None:
    figures = card.read_text("utf-8").partition(HEADING)[2]
    assert f"world `{fingerprint()}`" in figures
    assert "| measured | figure | bar |" in figures
    assert "Again with `python -m pleinair.evals.pocket.models --model " in figures


def test_new_figures_leave_the_description_of_the_training(tmp_path: Path) -> None:
    card = tmp_path / "MODEL_CARD.md"
    card.write_text(CARDS[0].read_text("utf-8"), "utf-8")
    replace_figures(card, figures_section({"beauty": ("0.5", ">= .9")}, "3 images", "look"))
    before, _, after = CARDS[0].read_text("utf-8").partition(HEADING)
    assert card.read_text("utf-8").startswith(before)
    assert "| beauty | 0.5 | >= .9 |" in card.read_text("utf-8")
    assert after not in card.read_text("utf-8")


@pytest.mark.parametrize("model", ["encoder", "detector", "generator"])
def test_the_figures_are_those_that_the_model_card_lists(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "weights")
    main(["--model", model, "--each", "1", "--folder", str(tmp_path / "weights"), "--cards"])
    measures = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()]
    shipped = card_of(model).read_text("utf-8")
    measured = card_of(model, tmp_path / "weights").read_text("utf-8")
    for card in (shipped, measured):
        figures = card.partition(HEADING)[2]
        assert [measure for measure in measures if f"| {measure} |" not in figures] == []
    assert f"--model {model} --each 1`" in measured
