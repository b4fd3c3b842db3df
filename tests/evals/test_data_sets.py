"""The command that looks at a data set and writes a library of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.data_set_folders import write_data_set

from pleinair.evals.__main__ import main
from pleinair.tools.retrieval.library import Library


def test_it_prints_layout_splits_classes_captions_and_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = write_data_set("cub", tmp_path)
    (tmp_path / written[0].path).unlink()
    assert main(["data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for part in (
        "CUB-200-2011 (cub)",
        "license: non-commercial research",
        "splits: train 5, test 3",
        "classes: 3: Black footed albatross, Mandarin duck, Common tern",
        "captions: 80",
        "test  Mandarin duck | view 0 of the mandarin duck",
        "problem: listed images that are missing and left out: 1 (",
    ):
        assert part in text


def test_json_has_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data_set("cub", tmp_path, variant="without_captions")
    assert main(["data", str(tmp_path), "--json", "--split", "test", "--classes", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["layout"], facts["splits"], facts["captions"]) == ("cub", {"test": 2}, 0)
    assert facts["classes"] == ["Black footed albatross", "Mandarin duck"]
    assert main(["data", str(tmp_path)]) == 0
    assert "captions: 0; they are in text_c10 of cvpr2016_cub.tar.gz" in capsys.readouterr().out


def test_a_library_has_the_images_to_train_on_unless_others_are_asked_for(tmp_path: Path) -> None:
    examples, out = write_data_set("flowers", tmp_path / "data"), tmp_path / "library"
    command = ["data", str(tmp_path / "data"), "--library", str(out)]
    assert main(command) == 0
    trained = {example.path for example in examples if example.split == "train"}
    assert Library.open(out).items.keys() == trained
    assert main([*command, "--split", "train", "test", "val", "none"]) == 0
    assert Library.open(out).items.keys() == {example.path for example in examples} > trained


def test_it_writes_a_library_of_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data_set("flowers", tmp_path / "data")
    out = tmp_path / "library"
    assert main(["data", str(tmp_path / "data"), "--split", "train", "--library", str(out)]) == 0
    assert f"library: {out}" in capsys.readouterr().out
    library = Library.open(out)
    assert len(library.items) == 6
    assert {item.caption for item in library.items.values()} == {
        "black footed albatross",
        "mandarin duck",
        "common tern",
    }
    assert main(["data", str(out)]) == 1
    assert "is a library that was written from a data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--split", "val"], "accepted: train, test"), (["--classes", "4"], "accepted: 1 to 3")],
)
def test_what_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    write_data_set("cub", tmp_path)
    assert main(["data", str(tmp_path), *arguments]) == 1
    assert text in capsys.readouterr().err
