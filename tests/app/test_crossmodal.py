"""Cross-modal RAG from the command line: drawing with it, and training its adaptor."""

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
    """Draw and read the sidecar."""
    done = call("draw", "picture 1 and picture 4", "--graph", "crossmodal", "--json", *words)
    assert done.exit_code == 0, done.output  # nobody looked at the result, and nothing went wrong
    return dict(json.loads(Path(json.loads(done.stdout)["sidecar"]).read_text("utf-8")))


def train(place: Path, *words: str) -> Result:
    library, out = str(place / "library"), str(place / "trained")
    return call("train", "adaptor", "--library", library, "--out", out, "--epochs", "2", *words)


def ids(sidecar: dict[str, Any]) -> list[str]:
    return [one["id"] for one in sidecar["references"]]


def test_the_paper_scores_by_the_whole_prompt_and_the_pocket_profile_by_what_a_caption_has() -> None:
    assert CrossmodalOptions().scored == load("klein").crossmodal.scored == "all"
    assert load("pocket").crossmodal.scored == "satisfied"


def test_a_drawing_takes_the_pictures_whose_captions_fit(place: Path) -> None:
    assert ids(draw()) == ["1.png", "4.png"]


def test_settings_reach_the_graph(place: Path) -> None:
    assert ids(draw("--set", "crossmodal.rag=false")) == []
    with pytest.raises(Exception, match="crossmodal.pareto = 'best'"):
        load(overrides={"crossmodal.pareto": "best"})
    assert load("pocket").crossmodal.template == "plain"


def test_a_training_tells_its_epochs_and_its_adaptor_scores_a_drawing(place: Path) -> None:
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


def test_a_training_keeps_to_the_budget_of_questions(place: Path) -> None:
    done = train(place, "--set", "budget.mllm_calls=3")
    assert "3 of 6 images have sub-queries; 3 captions gave none" in done.stdout
    assert (place / "effects.log").read_text("utf-8").count("question") == 3
    assert "6 of 6" in train(place, "--set", "budget.mllm_calls=3").stdout


def test_a_missing_adaptor_is_refused_before_anything_is_drawn(place: Path) -> None:
    done = call("draw", "p", "--graph", "crossmodal", "--set", "crossmodal.adaptor=nowhere")
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
