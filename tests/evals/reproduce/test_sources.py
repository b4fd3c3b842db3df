"""Data sets as their archives unpack: their splits and captions reach the plan of a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.data_set_folders import write_data_set

from pleinair.app.settings import load
from pleinair.evals.reproduce.command import plan_of
from pleinair.evals.reproduce.crossmodal import EXPERIMENT as CROSSMODAL
from pleinair.evals.reproduce.experiment import Experiment, Options
from pleinair.evals.reproduce.imagerag import EXPERIMENT as IMAGERAG
from pleinair.evals.reproduce.plan import Queries
from pleinair.tools.types import BadInput


def planned(experiment: Experiment, data: Path, table: str, name: str) -> Queries:
    options = Options(data=(data,), out=data / "out", only=(table,), data_sets=(name,))
    return plan_of(experiment, load("pocket"), options).tests[name]


def test_splits_beside_the_images_and_captions_beside_the_lists_are_used(tmp_path: Path) -> None:
    write_data_set("dogs", tmp_path / "dogs-data")
    write_data_set("cub", tmp_path / "birds")
    dogs = planned(IMAGERAG, tmp_path / "dogs-data", "5", "dogs")
    assert (len(dogs.subjects), len(dogs.pool)) == (3, 6)
    birds = planned(CROSSMODAL, tmp_path / "birds", "2", "cub")
    assert birds.subjects
    assert all(subject.prompt.startswith("Draw a ") for subject in birds.subjects)


def test_a_damaged_data_set_is_told_from_a_missing_one(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "birds")
    (tmp_path / "birds/CUB_200_2011/classes.txt").unlink()
    with pytest.raises(BadInput, match="data set cub: CUB-200-2011: `classes.txt` is missing"):
        planned(CROSSMODAL, tmp_path, "2", "cub")
    with pytest.raises(BadInput, match="data set wikiart: WikiArt, 81,444 paintings"):
        planned(CROSSMODAL, tmp_path, "2", "wikiart")
