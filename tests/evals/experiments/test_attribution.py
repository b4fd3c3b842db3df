"""Benchmark of attribution: the reference that shows a species is named, and the truth is the world's own."""

import json
from pathlib import Path

import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.experiments.attribution import Answer, report
from pleinair.tools.pocket.catalogue.library import shown_species, write_library
from pleinair.tools.pocket.catalogue.species import BY_NAME


def test_the_command_stops_after_so_many_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether an image is accepted depends on the weights; the carriers are tested with the tool itself."""
    file = tmp_path / "answers.json"
    assert main(["attribute", "--images", "1", "--prompts", "1", "--json", str(file)]) == 0
    answers = json.loads(file.read_text(encoding="utf-8"))
    assert len(answers) in (0, 2)
    assert all(BY_NAME[answer["concept"]].tier == answer["tier"] for answer in answers)
    right = sum((answer["carrier"] in (answer["true"] or [None])) for answer in answers)
    assert f"concepts with the carrier right: {right} of {len(answers)}" in capsys.readouterr().out


def test_a_wrong_answer_is_reported() -> None:
    answers = [
        Answer("two-0", "finch", "rare", 0, (1,)),
        Answer("two-0", "wren", "known", 1, (1,)),
        Answer("two-1", "owl", "rare", None, ()),
    ]
    lines = list(report(answers))
    assert lines[0].startswith("images with every carrier right: 1 of 2, 50.0 %")
    assert lines[1].startswith("concepts with the carrier right: 2 of 3")
    assert lines[2:] == [
        "of these, species that the generator knows by name: 1 of 1",
        "concepts that no reference shows: 1, that both show: 0",
        "wrong: two-0, finch: named 0, shown by (1,)",
    ]


def test_the_species_of_a_library_are_those_of_its_captions(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    write_library(folder, seed=3, size=60)
    shown = shown_species(seed=3, size=60)
    records = [
        json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert list(shown) == [record["file_name"] for record in records]
    named = [record for record in records if record.get("boxes")]
    assert len(named) > 20
    right = [set(record["boxes"]) <= set(shown[record["file_name"]]) for record in named]
    assert all(right)
