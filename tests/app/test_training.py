"""Training of a retriever from the command line, and runs with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pleinair.app.api import run_table
from pleinair.app.cli.main import app
from pleinair.app.settings import BackendChoice, load
from pleinair.app.training import find_pairs
from pleinair.tools.realrag import declared_training
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def train(place: Path, *words: str, out: str = "trained") -> Result:
    library = str(place / "library")
    return call("train", "retriever", "--library", library, "--out", out, "--epochs", "2", *words)


def generated(place: Path) -> int:
    log = place / "effects.log"
    return log.read_text("utf-8").count("picture") if log.exists() else 0


def trained(place: Path) -> list[str]:
    """Return options for the trained retriever; its folder differs per test, so no other test's is reused."""
    return ["--set", "encoder.backend=reflective", "--set", f"encoder.folder={place / 'trained'}"]


def draw(place: Path, *words: str) -> Result:
    return call("draw", "picture 1", "--graph", "realrag", "--json", *trained(place), *words)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_training_prints_its_epochs_and_the_lines_of_a_profile(place: Path) -> None:
    done = train(place)
    assert done.exit_code == 0, done.output
    for words in (
        "6 images with 6 prompts, of 6 in",
        "6 samples of stripes",
        "epoch 2 of 2: loss",
        'backend = "reflective"',
        json.dumps(str(place / "trained")),
        'method = "reflective"',
    ):
        assert words in done.stdout


def test_pairs_and_samples_are_recorded(place: Path) -> None:
    train(place)
    pairs, samples = lines(place / "trained" / "pairs.jsonl"), lines(place / "trained" / "samples.jsonl")
    assert [pair["prompt"] for pair in pairs] == [f"picture {number}" for number in range(6)]
    assert {pair["license"] for pair in pairs} == {"CC0-1.0"}
    assert pairs[1]["source"] == "https://example.org/1?a=1&b=2"
    assert all(pair["negative"] not in (None, pair["picture"]) for pair in pairs)
    assert {(sample["seed"], sample["generator"]) for sample in samples} == {(0, "stripes")}
    stored = {path.stem for path in (place / "home" / "cache" / "samples" / "sha256").rglob("*.png")}
    assert {sample["sha256"] for sample in samples} == stored


def test_samples_are_shared_by_trainings(place: Path) -> None:
    train(place)
    assert generated(place) == 6
    assert train(place, "--seed", "1", out="other").exit_code == 0
    assert generated(place) == 6


def test_the_normal_loss_needs_no_samples(place: Path) -> None:
    done = train(place, "--loss", "normal")
    assert (done.exit_code, generated(place)) == (0, 0)
    assert 'method = "normal"' in done.stdout


def test_a_run_uses_the_trained_retriever(place: Path) -> None:
    train(place)
    done = draw(place)
    assert done.exit_code == 0, done.output  # the graph has no critique
    answer = json.loads(done.stdout)
    assert Path(answer["picture"]).exists()
    assert (answer["ending"], answer["limit"]) == ("unchecked", None)


def test_the_retriever_of_another_generator_is_refused_without_the_flag(place: Path) -> None:
    train(place)
    file = place / "trained" / "retriever.json"
    file.write_text(file.read_text("utf-8").replace('"stripes"', '"dots"'), encoding="utf-8")
    before = generated(place)
    refused = draw(place)
    assert refused.exit_code not in (0, 3)
    assert "trained for generator `dots`, the run has `stripes`" in refused.stderr
    assert generated(place) == before
    assert draw(place, "--set", "encoder.any_generator=true").exit_code == 0


def test_other_graphs_refuse_it_too(place: Path) -> None:
    train(place)
    file = place / "trained" / "retriever.json"
    file.write_text(file.read_text("utf-8").replace('"stripes"', '"dots"'), encoding="utf-8")
    refused = call("draw", "two things", *trained(place))
    assert "trained for generator `dots`" in refused.stderr


def test_without_a_trained_retriever_the_method_is_refused(place: Path) -> None:
    refused = call("draw", "picture 1", "--graph", "realrag")
    assert refused.exit_code == 2
    assert "realrag.method = 'reflective': the retriever is 'zero'" in refused.stderr
    for way in (
        "`pleinair train retriever`",
        "--set realrag.method=zero",
        "--set realrag.method=self_contrast",
    ):
        assert way in refused.stderr
    assert not run_table().newest(9)
    assert call("draw", "picture 1", "--graph", "realrag", "--set", "realrag.method=zero").exit_code == 0


def test_self_contrast_needs_no_training(place: Path) -> None:
    words = ("--set", "realrag.method=self_contrast", "--json")
    answer = json.loads(call("draw", "picture 1", "--graph", "realrag", *words).stdout)
    assert answer["ending"] == "unchecked"
    assert generated(place) == 2


def test_a_trained_encoder_is_not_trained_again(place: Path) -> None:
    train(place)
    refused = train(place, *trained(place), out="second")
    assert refused.exit_code == 2
    assert "trained already" in refused.stderr


def test_a_folder_of_another_training_is_refused(place: Path) -> None:
    train(place)
    refused = train(place, "--tau", "0.1")
    assert refused.exit_code == 2
    assert "has another training (other choices)" in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--classes", "folders"), "images of 0 classes with a prompt"),
        (("--classes", "nowhere.txt"), "no readable file; accepted: 'captions'"),
    ],
)
def test_unusable_classes_are_refused(place: Path, words: tuple[str, ...], message: str) -> None:
    refused = train(place, *words)
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_names_come_from_a_file(place: Path) -> None:
    (place / "names.txt").write_text("picture 2\n\npicture 4\n", encoding="utf-8")
    pairs = find_pairs(Library.open(place / "library"), "names.txt")
    assert [(pair.id, pair.label) for pair in pairs] == [("2.png", "picture 2"), ("4.png", "picture 4")]


def test_the_options_are_read_from_the_settings() -> None:
    options = load(overrides={"realrag.references": 2, "realrag.method": "zero"}).realrag
    assert (options.references, options.method) == (2, "zero")
    with pytest.raises(BadInput, match=r"realrag.weight = -1 \(set in: the request\)"):
        load(overrides={"realrag.weight": -1})


def test_a_training_is_declared_without_loading_it(place: Path) -> None:
    train(place)
    choice = BackendChoice.model_validate({"backend": "reflective", "folder": str(place / "trained")})

    def build(*_: object) -> object:
        raise AssertionError("an encoder was loaded")

    training = declared_training(choice.backend, choice.arguments, build)
    assert training is not None
    assert (training.loss, training.generator) == ("reflective", "stripes")
    assert declared_training("open_clip", {"model": "ViT-B-32"}, build) is None
