"""`pleinair evaluate` with the pocket engines, from end to end; a shuffled library is in `tests/outside`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pleinair.app.cli.main import app
from pleinair.app.settings import load
from pleinair.evals.evaluate.judges import open_scorers
from pleinair.evals.reproduce.records import Records
from pleinair.tools.pocket.catalogue.library import write_library
from pleinair.tools.types import BadInput

QUICK = ("--set", "generator.num_inference_steps=4", "--images", "2", "--seeds", "1", "--concepts", "8")


def call(library: Path, out: Path, *words: str) -> Result:
    fixed = ("evaluate", "--library", str(library), "--profile", "pocket", "--out", str(out), *QUICK)
    return CliRunner().invoke(app, [*fixed, *words])


def figures(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "evaluate.json").read_text("utf-8"))
    return value


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLEINAIR_PATHS__HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libraries") / "clean"
    write_library(folder, seed=1, size=240, tiers=("rare",))  # of the chosen concepts each has three images
    return folder


@pytest.fixture(scope="module")
def clean(library: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("clean")
    result = call(library, out)
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_a_library_of_species_that_the_generator_does_not_know_helps(clean: tuple[Path, str]) -> None:
    out, shown = clean
    values = figures(out)
    assert values["verdict"] == "helps"
    assert shown.startswith("Retrieval helps: +")
    assert "(n = 8 concepts, 1 seed)" in shown.splitlines()[0]
    assert values["gain"]["interval"][0] > 0
    scores = {
        column["name"]: column["scores"]["same species as the true images"][0] for column in values["columns"]
    }
    assert scores["none"] < 0.3
    assert min(scores["retrieved"], scores["true"], scores["loop"]) >= scores["none"] + 0.3


def test_the_columns_share_prompts_and_seeds_and_no_reference_is_held_out(clean: tuple[Path, str]) -> None:
    entries = list(Records(clean[0] / "records.jsonl"))
    by_column: dict[str, list[Any]] = {}
    for entry in entries:
        by_column.setdefault(entry["arm"], []).append((entry["prompt"], entry["seed"]))
    assert [*by_column] == ["none", "retrieved", "true", "loop"]
    assert len({tuple(pairs) for pairs in by_column.values()}) == 1
    true = {
        reference["id"] for entry in entries if entry["arm"] == "true" for reference in entry["references"]
    }
    found = {
        reference["id"]
        for entry in entries
        if entry["arm"] in ("retrieved", "loop")
        for reference in entry["references"]
    }
    assert len(true) == 8 and found and not true & found


def test_the_page_shows_the_verdict_and_the_images(clean: tuple[Path, str]) -> None:
    page = (clean[0] / "evaluate.html").read_text("utf-8")
    assert figures(clean[0])["sentence"] in page
    assert page.count("<section>") == 8
    assert page.count('src="data:image/png;base64,') > 5 * 8


def test_a_stopped_command_goes_on_and_generates_nothing_twice(
    library: Path, clean: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean[0], out)
    records = out / "records.jsonl"
    lines = records.read_text("utf-8").splitlines(keepends=True)
    records.write_text("".join(lines[:-2]) + lines[-1][:40], "utf-8")  # killed while it wrote
    result = call(library, out)
    assert result.exit_code == 0, result.output
    assert "2 prompts to generate for, 30 done before" in result.stderr
    assert len(list(Records(records))) == 32
    assert figures(out)["gain"] == figures(clean[0])["gain"]


def test_a_dry_run_generates_nothing(library: Path, tmp_path: Path) -> None:
    result = call(library, tmp_path / "out", "--dry-run", "--concepts", "3")
    assert result.exit_code == 0
    assert "3 of 46 concepts by boxes" in result.stderr
    assert "12 prompts to generate for" in result.stderr
    assert '3 concepts: with fewer than 6 the verdict is "undecided"' in result.stderr
    assert "1 prompt of each concept: harm to a single concept cannot be told from chance" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_concepts_and_estimate_without_the_weights_of_the_default_scorer(
    library: Path, tmp_path: Path
) -> None:
    result = call(library, tmp_path / "out", "--dry-run", "--profile", "sdxl")
    assert result.exit_code == 2
    before, _, after = result.stderr.partition("prompts to generate for")
    assert "8 of 46 concepts by boxes" in before
    assert "No scorer: " in after
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--scorer", "nonsense"),
            "is no scorer of single images.\n          Accepted:\n          clip:MODEL=",
        ),
        (("--scorer", "fid:weights.pth"), "is no scorer of single images"),
        (("--scorer", "style:weights.pth"), "is no scorer of single images"),
        (("--scorer", "diversity:dino:folder"), "is no scorer of single images"),
        (("--scorer", "clip:local-dir:pocket/catalogue/encoder"), "encoder"),
        (("--concept", "unicorn"), "no concept has 2 images"),
        (("--out", " "), "--out: it is blank"),
        (("--set", "retrieval.k=none"), "retrieval.k"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    library: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = call(library, tmp_path / "out", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "prompts to generate for" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [".", "results"])
def test_results_do_not_become_a_part_of_the_library(library: Path, name: str) -> None:
    before = sorted(library.iterdir())
    result = call(library, library / name)
    assert result.exit_code == 2
    assert "it is in the library" in result.stderr
    assert sorted(library.iterdir()) == before


def test_a_generator_of_another_world_needs_weights_that_are_named() -> None:
    with pytest.raises(BadInput) as error:
        open_scorers((), load("sdxl"), allow_same=False)
    assert "is not complete on this machine" in error.value.message  # and nothing else is wrong with it
    assert "--scorer dinov2:dinov2" in error.value.remedy
    assert "346 MB" in error.value.remedy
