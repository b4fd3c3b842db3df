"""Training of a retriever from the command line, and runs with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.data_set_folders import write_data_set
from support.quick_engines import colour, speckled
from support.retriever_trainings import LOOKS, write_looks
from typer.testing import CliRunner, Result

from pleinair.app.api import run_table
from pleinair.app.cli.main import app
from pleinair.app.settings import BackendChoice, Renamed, load
from pleinair.app.trainings.retriever import find_pairs
from pleinair.tools.realrag import declared_training
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def train(place: Path, *words: str, out: str = "trained") -> Result:
    library = () if "--library" in words else ("--library", str(place / "library"))
    return call("train", "retriever", *library, "--out", out, "--epochs", "2", *words)


def generated(place: Path) -> int:
    log = place / "effects.log"
    return log.read_text("utf-8").count("picture") if log.exists() else 0


def trained(place: Path) -> list[str]:
    """Return options for the trained retriever; its folder differs per test, so no other test's is reused."""
    return ["--set", "encoder.backend=reflective", "--set", f"encoder.folder={place / 'trained'}"]


def draw(place: Path, *words: str) -> Result:
    return call("draw", "picture 1", "--graph", "realrag", "--json", *trained(place), *words)


def config(folder: Path) -> dict[str, Any]:
    """Return what `retriever.json` says of a training."""
    fields: dict[str, Any] = json.loads((folder / "retriever.json").read_text("utf-8"))
    return fields


def change_generator(place: Path) -> None:
    """Make the training one for another generator."""
    file = place / "trained" / "retriever.json"
    file.write_text(file.read_text("utf-8").replace('"stripes"', '"dots"'), encoding="utf-8")


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


def test_the_estimate_comes_first_and_alone_in_a_dry_run(place: Path) -> None:
    words = ("--samples", "2", "--set", "generator.usd=0.5")
    done = train(place, "--dry-run", *words)
    assert done.exit_code == 0, done.output
    rows = [line.split()[:4] for line in done.stdout.splitlines()]
    assert rows[0] == ["images", "0", "to", "12"]
    assert rows[1][:2] == ["US", "dollars"]
    assert not (place / "trained").exists() and generated(place) == 0
    assert not train(place, "--dry-run", "--loss", "normal").stdout


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
    change_generator(place)
    before = generated(place)
    refused = draw(place)
    assert refused.exit_code == 2
    assert "trained for sampler `dots`, the run has `stripes`" in refused.stderr
    assert (run_table().newest(9), generated(place)) == ([], before)
    assert draw(place, "--set", "encoder.any_generator=true").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--graph", "pleinair"),
        ("--graph", "imagerag"),
        ("--graph", "crossmodal"),
        ("--graph", "crossmodal", "--set", "retrieval.method=lexical"),
        ("--graph", "react", "--set", "mllm.backend=talker"),
        ("--graph", "realrag", "--dry-run"),
        ("--graph", "pleinair", "--dry-run"),
    ],
)
def test_no_graph_begins_a_run_with_it(place: Path, words: tuple[str, ...]) -> None:
    train(place)
    change_generator(place)
    before = generated(place)
    refused = call("draw", "two things", *trained(place), *words)
    assert refused.exit_code == 2
    assert "trained for sampler `dots`" in refused.stderr
    assert (run_table().newest(9), generated(place)) == ([], before)


def test_a_second_encoder_of_another_generator_is_refused_too(place: Path) -> None:
    train(place)
    change_generator(place)
    folder = json.dumps(str(place / "trained"))
    second = f'{{backend = "reflective", folder = {folder}}}'
    words = ("--set", f"retrieval.second={second}", "--set", "retrieval.method=both")
    refused = call("draw", "two things", *words)
    assert (refused.exit_code, run_table().newest(9)) == (2, [])
    assert "trained for sampler `dots`" in refused.stderr


@pytest.mark.parametrize(
    "words", [("--graph", "direct"), ("--graph", "pleinair", "--set", "retrieval.method=lexical")]
)
def test_a_run_without_vectors_does_not_mind_it(place: Path, words: tuple[str, ...]) -> None:
    train(place)
    change_generator(place)
    assert call("draw", "picture 1", *trained(place), *words).exit_code in (0, 3)


def test_an_unfinished_training_is_refused_before_a_run(place: Path) -> None:
    train(place)
    (place / "trained" / "epoch-002.safetensors").unlink()
    refused = draw(place)
    assert (refused.exit_code, run_table().newest(9)) == (2, [])
    assert "has no checkpoint of epoch 2 (there are: none)" in refused.stderr


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
        (("--out", "file"), "out 'file': it is a file; must be a folder"),
        (("--classes", "one.txt"), "images of 1 classes with a prompt; accepted: 2 or more"),
        (("--classes", "folders"), "images of 0 classes with a prompt"),
        (("--classes", "nowhere.txt"), "no readable file; accepted: 'captions'"),
    ],
)
def test_unusable_options_are_refused_before_a_sample(
    place: Path, words: tuple[str, ...], message: str
) -> None:
    (place / "file").touch()
    (place / "one.txt").write_text("picture 2\n", encoding="utf-8")
    refused = train(place, *words)
    assert (refused.exit_code, generated(place)) == (2, 0)
    assert message in refused.stderr


def test_names_come_from_a_file(place: Path) -> None:
    (place / "names.txt").write_text("picture 2\n\npicture 4\n", encoding="utf-8")
    library = Library.open(place / "library")
    part, pairs = find_pairs(library, "names.txt")
    assert part is library
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


def test_the_defaults_of_the_command_are_recorded(place: Path) -> None:
    train(place)
    assert config(place / "trained")["choices"] == {
        "loss": "reflective",
        "epochs": 2,
        "batch": 64,
        "learning_rate": 1e-3,
        "tau": 0.07,
        "tau_on_reflective": True,
        "collisions": "class",
        "width": 256,
        "samples": 1,
        "seed": 0,
    }


def weights(folder: Path) -> bytes:
    return (folder / "epoch-002.safetensors").read_bytes()


@pytest.fixture
def classes(place: Path) -> Path:
    """Write a library of two classes with three images each, in folders with their names."""
    for name in ("robin", "wren"):
        (place / "classes" / name).mkdir(parents=True)
        for number in range(3):
            image = speckled(16, colour(f"{name} {number}"))
            image.save(place / "classes" / name / f"{number}.png")
    return place


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (("--as-printed",), "tau_on_reflective", False),
        (("--collisions", "image"), "collisions", "image"),
        (("--loss", "normal"), "loss", "normal"),
        (("--tau", "0.2"), "tau", 0.2),
    ],
)
def test_an_option_is_recorded_and_changes_the_training(
    classes: Path, words: tuple[str, ...], field: str, value: object
) -> None:
    library = ("--library", str(classes / "classes"), "--classes", "folders")
    train(classes, *library, out="plain")
    done = train(classes, *library, *words, out="other")
    assert done.exit_code == 0, done.output
    assert config(classes / "other")["choices"] == config(classes / "plain")["choices"] | {field: value}
    assert weights(classes / "plain") != weights(classes / "other")


def test_the_old_flag_still_works(classes: Path) -> None:
    with pytest.warns(Renamed, match="--not-of-class is the default now"):
        train(classes, "--collisions", "image", "--not-of-class")
    assert config(classes / "trained")["choices"]["collisions"] == "class"


def test_negatives_are_of_other_classes(classes: Path) -> None:
    train(classes, "--library", str(classes / "classes"), "--classes", "folders")
    pairs = lines(classes / "trained" / "pairs.jsonl")
    assert len(pairs) == 6
    assert all(pair["class"] not in pair["negative"] for pair in pairs)


def test_the_negatives_of_each_class_are_what_the_generator_draws_for_it(place: Path) -> None:
    write_looks(place / "looks")
    engines = ("--set", "generator.backend=confused", "--set", "encoder.backend=words")
    done = train(place, "--library", str(place / "looks"), "--classes", "folders", *engines)
    assert done.exit_code == 0, done.output
    samples = lines(place / "trained" / "samples.jsonl")
    assert {sample["prompt"] for sample in samples} == {f"A photo of a {name}" for name in LOOKS}
    assert len({sample["sha256"] for sample in samples}) == len(LOOKS)
    pairs = lines(place / "trained" / "pairs.jsonl")
    names = list(LOOKS)  # the generator draws the look of the next one
    next_name = dict(zip(names, [*names[1:], names[0]], strict=True))
    assert len(pairs) == 9
    for pair in pairs:
        assert pair["class"] in pair["picture"]
        assert pair["prompt"] == f"A photo of a {pair['class']}"
        assert Path(pair["negative"]).parent.name == next_name[pair["class"]]


def test_a_retriever_is_for_the_steps_and_the_size_that_it_was_trained_with(place: Path) -> None:
    train(place)
    sampling = config(place / "trained")["sampling"]
    assert sampling == {
        "sampler": "stripes",
        "width": 16,
        "height": 16,
        "num_inference_steps": 3,
        "guidance_scale": 1.0,
        "negative_prompt": "",
    }
    refused = draw(place, "--set", "image.num_inference_steps=2")
    assert "trained for num_inference_steps `3`, the run has `2`" in refused.stderr
    assert refused.exit_code == 2
    assert not run_table().newest(9)
    assert train(place, "--set", "image.num_inference_steps=2", out="other").exit_code == 0
    assert config(place / "other")["sampling"] == sampling | {"num_inference_steps": 2}


def test_another_samples_folder_is_refused_before_a_sample_is_generated(place: Path) -> None:
    train(place)
    before = generated(place)
    refused = train(place, "--set", "image.num_inference_steps=2")
    assert refused.exit_code == 2
    assert "has another training (other sampling)" in refused.stderr
    assert generated(place) == before


def test_a_retriever_of_an_earlier_version_is_for_the_generator_with_its_id(place: Path) -> None:
    train(place)
    file = place / "trained" / "retriever.json"
    fields = config(place / "trained")
    del fields["sampling"]
    for generator, is_accepted in (("stripes", True), ("dots", False)):
        file.write_text(json.dumps(fields | {"version": 1, "generator": generator}), encoding="utf-8")
        done = draw(place, "--set", "image.num_inference_steps=2")
        assert (done.exit_code == 0) is is_accepted, done.output
    assert "trained for generator `dots`, the run has `stripes`" in done.stderr


def test_the_device_of_the_encoder_is_the_trainings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = list[str]()

    def record(training_set: object, config: object, folder: Path, device: str) -> list[tuple[int, float]]:
        devices.append(device)
        return []

    monkeypatch.setattr("pleinair.tools.retrieval.realrag.training.train", record)
    train(place)
    monkeypatch.setattr("support.quick_engines.Hashes.device", "cuda:1", raising=False)
    train(place, out="other")
    assert devices == ["cpu", "cuda:1"]


@pytest.mark.parametrize("layout", ["dogs", "cub", "imagenet", "inaturalist"])
def test_a_data_set_is_trained_on_by_its_names_and_split(place: Path, layout: str) -> None:
    examples = write_data_set(layout, place / "set")
    done = call("train", "retriever", "--library", str(place / "set"), "--out", "trained", "--epochs", "2")
    assert done.exit_code == 0, done.output
    trained = {example.path: example.class_name for example in examples if example.split == "train"}
    pairs = lines(place / "trained" / "pairs.jsonl")
    assert {pair["picture"]: pair["prompt"] for pair in pairs} == {
        path: f"A photo of a {name}" for path, name in trained.items()
    }
    assert {pair["negative"] for pair in pairs} <= trained.keys()
    assert f"of {len(trained)} in" in done.stdout  # no other image is indexed


def test_a_training_on_a_split_leaves_the_index_of_the_whole_folder_alone(place: Path) -> None:
    write_data_set("dogs", place / "set")
    assert call("index", str(place / "set")).exit_code == 0
    (index,) = (place / "home" / "cache" / "indexes").iterdir()
    before = (index / "manifest.json").read_bytes()
    assert train(place, "--library", str(place / "set")).exit_code == 0
    assert (index / "manifest.json").read_bytes() == before
    assert (index.parent / f"{index.name}-train" / "manifest.json").is_file()


def test_a_file_of_names_does_not_widen_the_split(place: Path) -> None:
    examples = write_data_set("dogs", place / "set")
    folders = {Path(example.path).parent.name for example in examples}
    (place / "names.txt").write_text("".join(f"{name}\tdog {name[-3:]}\n" for name in folders), "utf-8")
    done = train(place, "--library", str(place / "set"), "--classes", "names.txt")
    assert done.exit_code == 0, done.output
    trained = {example.path for example in examples if example.split == "train"}
    assert {pair["picture"] for pair in lines(place / "trained" / "pairs.jsonl")} == trained


@pytest.mark.parametrize("classes", ["", "captions"])
def test_a_data_set_beside_other_folders_is_refused(place: Path, classes: str) -> None:
    write_data_set("cub", place / "set")
    both = ("--library", str(place / "library"), "--library", str(place / "set"))
    refused = train(place, *both, "--classes", classes)
    assert refused.exit_code == 2
    assert "is CUB-200-2011, which is trained on alone" in refused.stderr
    assert not (place / "trained").exists()


def test_unknown_codes_are_refused_before_anything_is_written(classes: Path) -> None:
    (classes / "classes" / "wren").rename(classes / "classes" / "n01531178")
    refused = train(classes, "--library", str(classes / "classes"), "--classes", "folders")
    assert refused.exit_code == 2
    for words in ("'n01531178' is named by a code", "--classes FILE", "a tab, and the name of its class"):
        assert words in " ".join(refused.stderr.split())
    assert not (classes / "trained").exists()
    (classes / "names.txt").write_text("n01531178\tgoldfinch\nrobin\trobin\n", encoding="utf-8")
    library = str(classes / "classes")
    done = call("train", "retriever", "--library", library, "--out", "trained", "--classes", "names.txt")
    assert done.exit_code == 0, done.output
    prompts = {pair["prompt"] for pair in lines(classes / "trained" / "pairs.jsonl")}
    assert prompts == {"A photo of a goldfinch", "A photo of a robin"}


def test_a_file_with_a_line_without_a_tab_is_refused(classes: Path) -> None:
    (classes / "names.txt").write_text("wren\tWren\nrobin\n", encoding="utf-8")
    refused = train(classes, "--classes", "names.txt")
    assert (refused.exit_code, "the line 'robin' has no tab" in refused.stderr) == (2, True)


def test_too_many_references_are_bad_input_and_no_run(place: Path) -> None:
    words = ("--set", "realrag.method=zero", "--set", "realrag.references=3")
    refused = call("draw", "picture 1", "--graph", "realrag", *words)
    assert refused.exit_code == 2
    assert "realrag.references = 3: `stripes` accepts 2 at most" in refused.stderr
    assert not run_table().newest(9)
    assert generated(place) == 0
