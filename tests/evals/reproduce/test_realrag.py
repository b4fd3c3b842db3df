"""RealRAG on tiny data sets with the pocket engines: trainings, one pool of all data sets, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.paper_data import CLASSES, save_scorers, write_data

from pleinair.evals.__main__ import main
from pleinair.evals.reproduce import realrag
from pleinair.evals.reproduce.experiment import Options
from pleinair.evals.reproduce.records import Records
from pleinair.tools.data_sets.data_set import DataSet, Example
from pleinair.tools.data_sets.recognise import LAYOUTS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), "cars", "flowers", classes=CLASSES[:2])


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    words = save_scorers(tmp_path_factory.mktemp("weights"))
    return [*words, "--scorer", f"accuracy:{words[1]}", "--scorer", f"frechet:{words[3]}"]


def run(data: Path, out: Path, *words: str) -> int:
    common = ["--profile", "pocket", "--images", "1", "--train", "epochs=2", *words]
    return main(["realrag", "--data", str(data), "--out", str(out), *common])


WORDS = ("--only", "1,5", "--data-sets", "cars,flowers")


@pytest.fixture(scope="module")
def made(data: Path, scorers: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert run(data, out, *WORDS, *scorers) == 0
    return out


def test_a_class_has_ten_images_by_default_and_all_its_test_images_to_compare_with() -> None:
    images = tuple(Example(f"{number}.jpg", "Beetle", (), "test") for number in range(14))
    cars = DataSet(LAYOUTS["cars"], Path("cars"), ("Beetle",), images)
    subjects = realrag.class_test(cars, Options((), Path("out"))).subjects
    assert [subject.prompt for subject in subjects] == ["A photo of a Beetle"] * 10
    assert len({subject.seed for subject in subjects}) == 10
    assert {len(subject.truth) for subject in subjects} == {14}


def test_every_retriever_is_trained_and_every_row_measured(made: Path) -> None:
    figures = json.loads((made / "realrag.json").read_text("utf-8"))
    rows = {(cell["row"], cell["data_set"], cell["measure"]): cell for cell in figures["tables"]["realrag/1"]}
    for row in ("base model", "RealRAG, reflective (domain pool)"):
        assert rows[row, "cars", "CLIP-I"]["n"] == 2
        assert abs(rows[row, "cars", "CLIP-T"]["mean"]) > 1  # × 100, as the paper's
        assert rows[row, "flowers", "FID (Fréchet distance)"]["interval"] is None  # of the set of images
    accuracies = {cell["row"]: cell for cell in figures["tables"]["realrag/5"] if cell["data_set"] == "cars"}
    assert set(accuracies) == {f"RealRAG, {name} (domain pool)" for name in ("zero", "normal", "reflective")}
    assert all(0 <= cell["mean"] <= 100 for cell in accuracies.values())
    assert accuracies["RealRAG, zero (domain pool)"]["published"]["value"] == 36.27
    trained = sorted(path.name.partition("-")[0] for path in (made / "retrievers").iterdir())
    assert trained == ["normal", "reflective"]
    for folder in (made / "retrievers").iterdir():
        choices = json.loads((folder / "retriever.json").read_text("utf-8"))["choices"]
        assert choices["loss"] == folder.name.partition("-")[0] and choices["epochs"] == 2


def test_the_pool_is_the_images_to_train_of_all_data_sets(made: Path) -> None:
    pools = list((made / "pools").iterdir())
    assert sorted(pool.name.partition("-")[0] for pool in pools) == ["cars", "flowers"]
    ids = {f"{pool.name}/{path.relative_to(pool)}" for pool in pools for path in pool.rglob("*.jpg")}
    used = {reference["id"] for entry in Records(made / "records.jsonl") for reference in entry["references"]}
    assert len(ids) == 2 * 2 * 3 and used and used <= ids


def test_the_estimate_counts_images_and_the_samples_of_the_training(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "out", *WORDS, "--scorer", "none", "--estimate") == 0
    text = capsys.readouterr().err
    figures = json.loads((made / "realrag.json").read_text("utf-8"))
    (folder,) = (made / "retrievers").glob("reflective-*")
    samples = len((folder / "samples.jsonl").read_text("utf-8").splitlines())
    assert f"{samples} of these are samples for a training" in text
    images = int(text.split("\nimages", 1)[1].split("\n")[0])
    runs = sum(1 for _ in Records(made / "records.jsonl"))
    assert f"{runs} prompts to generate for" in text and images == runs + samples
    assert figures["cost"]["images"] == runs
    assert not (tmp_path / "out").exists()


def test_a_finished_command_trains_and_generates_nothing(
    data: Path, made: Path, scorers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (made / "retrievers").rglob("*")}
    assert run(data, made, *WORDS, *scorers) == 0
    assert "0 prompts to generate for, 16 done before" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (made / "retrievers").rglob("*")} == before


def test_an_unknown_option_of_the_training_is_refused_before_anything_is_made(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "out", *WORDS, "--scorer", "none", "--train", "epoch=3") == 1
    assert "epochs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
