"""Data sets as their archives unpack: their splits and captions reach the plan of a command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.data_set_folders import write_data_set
from support.paper_data import write_data

from pleinair.app.settings import load
from pleinair.evals.__main__ import main
from pleinair.evals.reproduce.command import EXPERIMENTS
from pleinair.evals.reproduce.crossmodal import EXPERIMENT as CROSSMODAL
from pleinair.evals.reproduce.experiment import Experiment, Options
from pleinair.evals.reproduce.imagerag import EXPERIMENT as IMAGERAG
from pleinair.evals.reproduce.plan import Queries
from pleinair.evals.reproduce.run import Plan, plan_of
from pleinair.tools.types import BadInput


def plan(experiment: Experiment, data: Path, table: str, name: str) -> Plan:
    options = Options(data=(data,), out=data / "out", only=(table,), data_sets=(name,))
    return plan_of(experiment, load("pocket"), options)


def planned(experiment: Experiment, data: Path, table: str, name: str) -> Queries:
    return plan(experiment, data, table, name).tests[name]


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
    (damaged,) = plan(CROSSMODAL, tmp_path, "2", "cub").missing
    assert damaged.startswith("data set cub: CUB-200-2011: `classes.txt` is missing")
    (missing,) = plan(CROSSMODAL, tmp_path, "2", "wikiart").missing
    assert missing.startswith("data set wikiart: WikiArt, 81,444 paintings") and "license:" in missing


def words_of(data: Path, *words: str) -> list[str]:
    return ["--data", str(data), "--out", str(data / "out"), *words]


ENCODER = "encoder timm/vit_base_patch32_clip_224.openai: `pleinair models pull"
KEY = "mllm: https://api.openai.com/v1 needs a key. Set the environment variable OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ("imagerag", "--only", "4,5", "--profile", "omnigen"),
            (
                "data set imagenet",
                "data set flowers: Oxford Flowers-102",
                KEY,
                "generator Shitao/OmniGen-v1-diffusers: `pleinair models pull omnigen`",
                ENCODER,
                "second encoder timm/ViT-SO400M-14-SigLIP-384",
                "license: apache-2.0",
                "scorer clip:ViT-L-14=laion2b_s32b_b82k: laion/CLIP-ViT-L-14-laion2B-s32B-b82K, 1.7 GB",
                "hf download laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
                "scorer dino:FOLDER: facebook/dino-vits16",
                "leave it out by --data-sets (data sets), --scorer (scores, or none), --only",
            ),
        ),
        (("crossmodal", "--only", "1,3", "--profile", "gpt_image"), ("data set coco", "flickr30k", ENCODER)),
        (
            ("realrag", "--only", "1:base", "--profile", "sdxl", "--scorer", "dinov2:/none"),
            ("data set cars", KEY, "generator stabilityai/stable", "scorer dinov2:/none", "facebook/dinov2"),
        ),
        (("imagerag", "--only", "E.5", "--profile", "openai"), ("data set inaturalist", KEY)),
    ],
)
def test_one_message_names_all_that_is_missing(
    words: tuple[str, ...],
    parts: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write_data_set("cub", tmp_path / "birds")
    assert main([words[0], *words_of(tmp_path, *words[1:])]) == 1
    message = capsys.readouterr().err
    first, *lines, last = message.splitlines()
    assert first == "Nothing was generated, since this is missing:"
    assert last.startswith("Provide it, or leave it out by ")
    assert all(line.startswith("  ") for line in lines) and len(lines) == len(set(lines))
    assert not [part for part in parts if part not in message]
    if words[0] == "crossmodal" or "E.5" in words:  # nothing is generated and nothing scored
        assert "generator" not in message and "scorer" not in message
    capsys.readouterr()
    assert main([words[0], *words_of(tmp_path, *words[1:], "--estimate")]) == 0
    estimate = capsys.readouterr().err
    assert [line for line in lines if f"missing: {line.strip()}" not in estimate] == []
    assert "figures leave out the data sets that are missing" in estimate
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("scorer", "text"),
    [
        ("clip:ViT-B-32=openai", "also did the retrieval"),
        ("clap:ViT-B-32=openai", "is no scorer. Accepted:"),
        ("clip:ViT-L-41=openai", "open_clip knows no weights"),
    ],
)
def test_a_scorer_that_is_refused_or_mistyped_is_not_called_missing(
    scorer: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data_set("cub", tmp_path / "birds")
    words = ("--only", "2", "--data-sets", "cub", "--profile", "omnigen", "--scorer", scorer)
    assert main(["imagerag", *words_of(tmp_path, *words)]) == 1
    message = capsys.readouterr().err
    assert text in message and "missing" not in message and not (tmp_path / "out").exists()


def test_the_numbers_of_the_help_are_those_that_are_accepted(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "birds")
    for experiment, _ in EXPERIMENTS.values():
        options = Options(data=(tmp_path,), out=tmp_path / "out")
        plans = {
            number: plan_of(experiment, load("pocket"), replace(options, only=(number,)))
            for number in experiment.numbers
        }
        ids = {
            number: [
                each.id
                for each in (*made.sheets, *(sheet for extra in made.extras for sheet in extra.sheets))
            ]
            for number, made in plans.items()
        }
        assert all(ids.values()), ids
        with pytest.raises(BadInput, match=f"accepted: tables {', '.join(experiment.numbers)}; rows"):
            plan_of(experiment, load("pocket"), replace(options, only=("none",)))
        if experiment is IMAGERAG:
            assert ids["6"] == ids["7"] == ["imagerag/6"]


def test_an_arm_without_images_says_why(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", "wikiart", train=1, test=1)  # titles that the pocket model refuses
    words = (
        "--only",
        "2:crossmodal",
        "--data-sets",
        "wikiart",
        "--scorer",
        "none",
        "--out",
        str(tmp_path / "out"),
    )
    assert main(["crossmodal", "--data", str(data), *words]) == 0
    page = (tmp_path / "out/crossmodal.md").read_text("utf-8")
    assert (
        "wikiart/crossmodal/domain: 3 of 3 prompts gave no image and are in no figure, most often: refused, "
        in page
    )
    assert "- CLIP was not measured: no prompt gave an image." in page
