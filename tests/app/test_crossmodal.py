"""Cross-modal RAG from the command line: runs, and the training of its adaptor."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.data_set_folders import write_data_set
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
    epochs = () if "--epochs" in words else ("--epochs", "2")
    return call("train", "adaptor", "--library", library, "--out", out, *epochs, *words)


def questions(place: Path) -> int:
    """Return the number of MLLM calls that were made."""
    return (place / "effects.log").read_text("utf-8").count("question")


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
    assert (done.exit_code, questions(place)) == (3, 3)
    assert "3 captions have no sub-queries yet. The same command goes on with them." in done.stderr
    assert not (place / "trained" / "model.safetensors").exists()
    assert "6 of 6" in train(place, "--set", "budget.mllm_calls=3").stdout
    assert questions(place) == 6


def test_the_estimate_comes_first_and_alone_in_a_dry_run(place: Path) -> None:
    done = train(place, "--dry-run", "--batch", "4")
    assert (done.exit_code, done.stdout.splitlines()[0].split()) == (0, ["MLLM", "calls", "6", "to", "12"])
    assert done.stdout.splitlines()[-1].split()[:2] == ["batches", "4"]
    assert not (place / "trained").exists() and not (place / "effects.log").exists()


def test_a_stopped_training_goes_on_and_another_one_is_refused_before_a_call(place: Path) -> None:
    assert train(place).exit_code == 0
    more = train(place, "--epochs", "3")
    assert (more.exit_code, questions(place)) == (0, 6)
    assert [line for line in more.stdout.splitlines() if line.startswith("epoch")][0][:12] == "epoch 3 of 3"
    refused = train(place, "--set", "crossmodal.decomposition=whole_phrases")
    assert (refused.exit_code, questions(place)) == (2, 6)
    assert "another training" in refused.stderr
    again = train(place, "--set", "crossmodal.decomposition=whole_phrases", "--restart")
    assert (again.exit_code, questions(place)) == (0, 12)


def test_every_line_of_a_caption_gives_sub_queries(place: Path) -> None:
    rows = [{"file_name": f"{n}.png", "caption": [f"picture {n}", f"photo {n}"]} for n in range(6)]
    table = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "library" / "metadata.jsonl").write_text(table, "utf-8")
    done = train(place)
    assert "6 of 6 images have sub-queries; 0" in done.stdout, done.output
    lines = (place / "trained" / "subqueries.jsonl").read_text("utf-8").splitlines()
    assert len([line for line in lines if line]) == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "file"), "out 'file': it is a file; must be a folder"),
        (("--device", "cudaa"), "device = 'cudaa': no torch device"),
    ],
)
def test_unusable_options_are_refused_before_a_call(
    place: Path, words: tuple[str, ...], message: str
) -> None:
    (place / "file").touch()
    refused = train(place, *words)
    assert refused.exit_code == 2, refused.output
    assert message in refused.stderr
    assert not (place / "effects.log").exists()


@pytest.mark.parametrize("layout", ["coco", "cub", "flickr30k", "flowers"])
def test_of_a_data_set_only_the_split_to_train_is_used_with_its_captions(place: Path, layout: str) -> None:
    examples = write_data_set(layout, place / "set")
    out = place / "trained"
    done = call("train", "adaptor", "--library", str(place / "set"), "--out", str(out), "--epochs", "1")
    assert done.exit_code == 0, done.output
    trained = [example for example in examples if example.split == "train"]
    answers = [json.loads(line) for line in (out / "subqueries.jsonl").read_text("utf-8").split("\n") if line]
    assert {answer["caption"] for answer in answers} == {
        caption for example in trained for caption in example.captions or [example.class_name]
    }
    assert f"{len(trained)} of {len(trained)} images have sub-queries" in done.stdout


def test_a_later_run_takes_the_tokens_of_images_from_the_cache(place: Path) -> None:
    train(place)
    setting = f"crossmodal.adaptor={json.dumps(str(place / 'trained'))}"
    draw("--set", setting)
    (cache,) = place.rglob("adaptor-tokens.sqlite")
    before = cache.read_bytes()
    draw("--set", setting)
    assert cache.read_bytes() == before


def test_an_adaptor_of_another_encoder_ends_a_run_before_a_call(place: Path) -> None:
    train(place)
    setting = f"crossmodal.adaptor={json.dumps(str(place / 'trained'))}"
    before = questions(place)
    done = call("draw", "p", "--graph", "crossmodal", "--set", setting, "--set", "encoder.salt=x")
    assert done.exit_code == 5, done.output
    assert "is of encoder `hashes`, not of `hashesx`" in done.stderr
    assert questions(place) == before


def test_a_folder_without_an_adaptor_is_refused_before_the_run(place: Path) -> None:
    done = call("draw", "p", "--graph", "crossmodal", "--set", f"crossmodal.adaptor={place / 'library'}")
    assert done.exit_code == 2
    assert "it has no config.json" in done.stderr


def test_a_missing_adaptor_is_refused_before_the_run(place: Path) -> None:
    done = call("draw", "p", "--graph", "crossmodal", "--set", "crossmodal.adaptor=nowhere")
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
