"""The model cards of the pocket models match the models and the world."""

import shutil
from pathlib import Path

import pytest

from pleinair.evals.pocket.models import MODELS, ORACLE, card_of, main
from pleinair.evals.pocket.oracle import WEIGHTS
from pleinair.tools.pocket.catalogue.sampling import fingerprint
from pleinair.tools.pocket.training.__main__ import OUT
from pleinair.tools.pocket.training.card import HEADING, figures_section, replace_figures

CARDS = [card_of(model) for model in MODELS if model != "oracle"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{card.parent.name}/{card.name}")
def test_a_model_card_was_measured_in_this_world(card: Path) -> None:
    description, heading, figures = card.read_text("utf-8").partition(HEADING)
    assert f"world `{fingerprint()}`" in description
    assert not heading or f"world `{fingerprint()}`" in figures
    assert not heading or "| measured | figure | bar |" in figures


def test_the_card_of_the_oracle_is_beside_its_weights() -> None:
    assert card_of("oracle", Path("weights")) == ORACLE
    assert ORACLE.parent == WEIGHTS.parent


def test_new_figures_leave_the_description_of_the_training(tmp_path: Path) -> None:
    card = tmp_path / "MODEL_CARD.md"
    card.write_text(CARDS[0].read_text("utf-8"), "utf-8")
    replace_figures(card, figures_section({"beauty": ("0.5", ">= .9")}, "3 images", "look"))
    before, _, after = CARDS[0].read_text("utf-8").partition(HEADING)
    assert card.read_text("utf-8").startswith(before)
    assert "| beauty | 0.5 | >= .9 |" in card.read_text("utf-8")
    assert not after or after not in card.read_text("utf-8")


@pytest.mark.parametrize(
    ("model", "each", "measures"),
    [
        ("encoder", 200, ["R@1, rare, name → image"]),
        ("detector", 6, ["precision, names, clean images", "recall, all phrases, degraded images"]),
    ],
)
def test_the_measures_are_printed_and_written_into_the_card(
    model: str, each: int, measures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in {"encoder", model}:
        shutil.copytree(OUT / part, tmp_path / part)
    main(["--model", model, "--each", str(each), "--folder", str(tmp_path), "--cards"])
    printed, card = capsys.readouterr().out, card_of(model, tmp_path).read_text("utf-8")
    for measure in measures:
        assert f"{model}: {measure}: " in printed
        assert f"| {measure} | " in card.partition(HEADING)[2]
    assert f"--model {model} --each {each}`" in card


@pytest.mark.parametrize(
    ("model", "measures"),
    [
        (
            "generator",
            ["novel species, one reference", "autoencoder, mean absolute error"],
        ),
        ("oracle", ["right species, one subject, clean images"]),
    ],
)
def test_what_the_oracle_measures_is_printed(
    model: str, measures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--model", model, "--each", "1"])
    printed = capsys.readouterr().out
    assert [measure for measure in measures if f"{model}: {measure}: " not in printed] == []
