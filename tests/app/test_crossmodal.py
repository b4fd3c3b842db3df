"""Cross-modal RAG from the command line: runs, and the training of its adaptor."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pleinair.app.cli.main import app
from pleinair.app.settings import load
from pleinair.tools.crossmodal import CrossmodalOptions


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def draw(*words: str) -> dict[str, Any]:
    """Run the graph and read the sidecar."""
    done = call("draw", "picture 1 and picture 4", "--graph", "crossmodal", "--json", *words)
    assert done.exit_code == 0, done.output  # the graph has no critique
    return dict(json.loads(Path(json.loads(done.stdout)["sidecar"]).read_text("utf-8")))


def train(place: Path, *words: str) -> Result:
    library, out = str(place / "library"), str(place / "trained")
    return call("train", "adaptor", "--library", library, "--out", out, "--epochs", "2", *words)


def ids(sidecar: dict[str, Any]) -> list[str]:
    return [credit["id"] for credit in sidecar["references"]]


def test_the_default_scores_by_all_sub_queries_and_the_pocket_profile_by_satisfied_ones() -> None:
    assert CrossmodalOptions().scored == load("klein").crossmodal.scored == "all"
    assert load("pocket").crossmodal.scored == "satisfied"


def test_a_run_uses_the_images_whose_captions_match(place: Path) -> None:
    assert ids(draw()) == ["1.png", "4.png"]


def test_settings_reach_the_graph(place: Path) -> None:
    assert ids(draw("--set", "crossmodal.rag=false")) == []
    with pytest.raises(Exception, match="crossmodal.pareto = 'best'"):
        load(overrides={"crossmodal.pareto": "best"})
    assert load("pocket").crossmodal.template == "plain"


def test_a_training_prints_its_epochs_and_a_run_uses_its_adaptor(place: Path) -> None:
    done = train(place)
    assert done.exit_code == 0, done.output
    trained = place / "trained"
    for words in (
        "6 of 6 images have sub-queries; 0",
        "epoch 2 of 2: loss",
        f"crossmodal.adaptor={trained}",
    ):
        assert words in done.stdout
    setting = json.dumps(str(trained))
    assert ids(draw("--set", f"crossmodal.adaptor={setting}")) == ["1.png", "4.png"]


def test_a_training_stays_within_the_budget_of_mllm_calls(place: Path) -> None:
    done = train(place, "--set", "budget.mllm_calls=3")
    assert "3 of 6 images have sub-queries; 3 captions gave none" in done.stdout
    assert (place / "effects.log").read_text("utf-8").count("question") == 3
    assert "6 of 6" in train(place, "--set", "budget.mllm_calls=3").stdout


def test_a_missing_adaptor_is_refused_before_the_run(place: Path) -> None:
    done = call("draw", "p", "--graph", "crossmodal", "--set", "crossmodal.adaptor=nowhere")
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
