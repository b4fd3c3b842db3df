"""The command `scores`: drawn images and real ones in, a table and JSON out."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from support import tiny_pipelines as tiny

from pleinair.app.api import draw
from pleinair.evals.__main__ import main
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import render
from pleinair.tools.pocket.catalogue.species import BY_NAME

NAMES = ("hoopoe", "kingfisher")
CLIP = "clip:local-dir:pocket/catalogue/encoder"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, real: Path) -> Path:
    """Folder of a run that retrieved and one that did not, of either species."""
    folder = tmp_path_factory.mktemp("drawn")
    for name in NAMES:
        for graph in ("imagerag", "direct"):
            draw(
                f"a photo of a {name}",
                profile="pocket",
                graph=graph,
                overrides={"library.folder": str(real)},
                seed=1,
                out=str(folder / graph),
            )
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Library of three images of each of three species, in folders by their names."""
    folder = tmp_path_factory.mktemp("real")
    for name in (*NAMES, "betta"):
        (folder / name).mkdir()
        for number in range(3):
            scene = draw_scene(random.Random(f"{name} {number}"), [BY_NAME[name]])
            render(scene).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save_dino(tmp_path_factory.mktemp("models") / "small"))


def test_drawn_images_are_scored_and_compared(
    drawn: Path, real: Path, dino: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scores", str(drawn / "direct"), str(real), "--scorer", CLIP, "--scorer", f"dino:{dino}"]
    words += [
        "--scorer",
        f"frechet:dino:{dino}",
        "--scorer",
        f"accuracy:{CLIP}",
        "--scorer",
        f"diversity:{CLIP}",
    ]
    assert main([*words, "--out", str(tmp_path)]) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0] == "| score | mean | 95 % interval | n | real | note |"
    assert [line.split(",")[0] for line in lines[2:]] == [
        f"| {name}" for name in ("CLIP-T", "CLIP-I", "DINO", "Fréchet distance", "accuracy", "diversity")
    ]
    assert "2 generated images, 6 real ones, 6 scores" in output.err
    assert (tmp_path / "scores.md").read_text("utf-8") == output.out
    figures = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert (figures["groups"], figures["retrievers"]) == (2, [])
    text, image, _, distance, accuracy, diverse = figures["scores"]
    assert text["n"] == len(text["values"]) == 2
    assert (image["real"], distance["real"], distance["interval"]) == (6, 6, None)
    assert distance["note"].startswith("2 generated, 6 real: under 10,000")
    assert accuracy["note"] == "of 3 classes"  # one of which has no generated image
    assert (diverse["n"], diverse["mean"], diverse["values"]) == (0, None, [None, None])


def test_the_encoder_of_the_runs_is_refused(
    drawn: Path, dino: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scores", str(drawn / "imagerag"), "--scorer", CLIP]
    assert main(words) == 1
    assert (
        "local-dir:pocket/catalogue/encoder also did the retrieval (open_clip:encoder@"
        in capsys.readouterr().err
    )
    assert main([*words, "--allow-same-encoder", "--json"]) == 0
    output = capsys.readouterr()
    assert "CLIP-I, open_clip:encoder" in output.err and "left out" in output.err
    figures = json.loads(output.out)
    assert [entry["name"].partition(",")[0] for entry in figures["scores"]] == ["CLIP-T"]
    assert len(figures["retrievers"]) == 1


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ("dino:{dino}", "compares with real images. Name their folder as REAL"),
        ("fid:none.pth", "Fetch `weights-inception-2015-12-05-6726825d.pth` (95 MB, Apache-2.0)"),
        ("style:none.pth", "Fetch torchvision's `vgg19-dcbb9e9d.pth` (575 MB"),
        ("dinov2:none", "Fetch facebook/dinov2-large (1.2 GB, Apache-2.0)"),
        ("clip:ViT-B-32=nobody", "open_clip knows no weights 'nobody' of ViT-B-32"),
        ("eye", "'eye' is no scorer. Accepted:"),
    ],
)
def test_what_is_missing_is_named_first(
    scorer: str, message: str, drawn: Path, dino: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scores", str(drawn / "direct"), "--scorer", scorer.format(dino=dino)]) == 1
    assert message in capsys.readouterr().err


def test_calls_of_the_language_model_are_announced(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scores", str(drawn / "direct"), "--scorer", "gptscore", "--profile", "pocket"]
    assert main(words) == 1  # the pocket model rates nothing
    output = capsys.readouterr().err
    assert "1 scores, at most 4 calls of the language model (2 without repairs)" in output
    assert "PocketChat cannot answer Rating" in output
