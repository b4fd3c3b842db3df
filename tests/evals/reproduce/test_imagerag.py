"""ImageRAG's tables on tiny data sets with the pocket engines: from folders to the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.openai_server import KEY, MODEL, served
from support.paper_data import CLASSES, draw, save_scorers, write_data

from pleinair.app.engines import build_backend
from pleinair.app.settings import altered, load
from pleinair.evals.__main__ import main
from pleinair.evals.reproduce import imagerag
from pleinair.evals.reproduce.experiment import Options
from pleinair.evals.reproduce.records import Records, alone
from pleinair.tools.types import PleinairError

Command = Callable[..., int]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), "cub", "imagenet")


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return save_scorers(tmp_path_factory.mktemp("weights"))


def run(data: Path, out: Path, *words: str) -> int:
    return main(["imagerag", "--data", str(data), "--out", str(out), "--profile", "pocket", *words])


def lines(out: Path) -> list[dict[str, Any]]:
    return list(Records(out / "records.jsonl"))


@pytest.fixture(scope="module")
def table_3(data: Path, scorers: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make table 3 on two classes of CUB, once for all tests that read it."""
    out = tmp_path_factory.mktemp("table-3")
    assert run(data, out, "--only", "3", "--data-sets", "cub", "--limit", "2", *scorers) == 0
    return out


def test_every_row_of_the_ablation_is_made_and_stands_beside_the_papers(table_3: Path) -> None:
    figures = json.loads((table_3 / "imagerag.json").read_text("utf-8"))
    cells = {
        (cell["row"], cell["measure"]): cell
        for cell in figures["tables"]["imagerag/3"]
        if cell["data_set"] == "cub" and cell["measure"] != "SigLIP"
    }
    rows = list(dict.fromkeys(row for row, _ in cells))
    assert rows == [
        "base model",
        "rephrased prompt",
        "retrieve by concepts (domain pool)",
        "retrieve by prompt (domain pool)",
        "ImageRAG, by captions (domain pool)",
    ]
    for cell in cells.values():
        assert cell["n"] == 2 and cell["groups"] == 2
        low, high = cell["interval"]
        assert low <= cell["mean"] <= high
    published = cells["ImageRAG, by captions (domain pool)", "CLIP"]["published"]
    assert published["value"] == 0.253
    assert figures["arms"]["cub/concepts/domain"]["imagerag.retrieve_by"] == "concepts"


def test_every_row_has_the_settings_of_its_name() -> None:
    settings = load("pocket", {"imagerag.retrieve_by": "prompt"})  # of which a row makes its own
    sheets = imagerag.sheets(settings, Options((), Path("out"), generic=Path("generic")))
    variants = {line.variant.name: line.variant for sheet in sheets for line in sheet.lines}
    rows = {name: altered(settings, variant.settings) for name, variant in variants.items()}
    assert variants["base"].graph == "direct"
    assert {name: rows[name].imagerag.retrieve_by for name in ("captions", "concepts", "prompt")} == {
        "captions": "captions",
        "concepts": "concepts",
        "prompt": "prompt",
    }
    assert [name for name, row in rows.items() if row.imagerag.rephrase_only] == ["rephrased"]
    assert {name: (row.imagerag.rerank, row.retrieval.method) for name, row in rows.items()} == {
        **dict.fromkeys(("base", "captions", "concepts", "prompt", "rephrased", "siglip"), (False, "auto")),
        "mllm-rerank": (True, "both"),
        "bm25-rerank": ("captions", "both"),
    }
    assert "SigLIP" in rows["siglip"].encoder.label and "SigLIP" not in rows["captions"].encoder.label


def test_rows_of_a_subject_share_its_seed_and_its_draft(table_3: Path) -> None:
    entries = [
        entry for entry in lines(table_3) if entry["prompt"] == f"A photo of a {CLASSES[0].capitalize()}"
    ]
    assert len(entries) == 5
    assert {entry["seed"] for entry in entries} == {0}
    assert len({entry["draft"]["sha256"] for entry in entries}) == 1
    assert len({entry["picture"]["sha256"] for entry in entries}) > 1


def test_references_are_of_the_split_to_train_and_never_scored_against(table_3: Path, data: Path) -> None:
    ids = {reference["id"] for entry in lines(table_3) for reference in entry["references"]}
    pool = {
        str(path.relative_to(pool)) for pool in (table_3 / "pools").iterdir() for path in pool.rglob("*.jpg")
    }
    assert ids and ids <= pool
    split = (data / "cub/CUB_200_2011/train_test_split.txt").read_text("utf-8").split()
    names = (data / "cub/CUB_200_2011/images.txt").read_text("utf-8").split()
    test = {
        f"CUB_200_2011/images/{name}"
        for name, part in zip(names[1::2], split[1::2], strict=True)
        if part == "0"
    }
    assert test and not test & pool


def test_the_report_warns_shows_settings_and_images(table_3: Path) -> None:
    page = (table_3 / "imagerag.md").read_text("utf-8")
    assert "not comparable with the published ones" in page.split("\n\n")[1]
    assert "`imagerag.rephrase_only = True`" in page
    assert "- Not run, not among --data-sets: imagenet." in page
    assert "- SigLIP was not measured: no scorer of SigLIP-T." in page and "| SigLIP |" not in page
    rows = [line.split(" | ")[:3] for line in page.splitlines() if line.startswith("| cub |")]
    assert len(rows) == 10 and [row[1] for row in rows] == ["CLIP"] * 5 + ["DINO (DINOv2)"] * 5
    assert rows[0][2] == "base model" and rows[4][2] == "ImageRAG, by captions (domain pool)"
    html = (table_3 / "imagerag.html").read_text("utf-8")
    assert html.count("data:image/png") == 2 * (1 + 5) + 2 * 3  # real, five rows, references of three
    assert (table_3 / "imagerag-3.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_command_goes_on_and_generates_nothing_twice(
    table_3: Path, data: Path, scorers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(table_3, out)
    shutil.rmtree(out / "pools")
    text = (out / "records.jsonl").read_text("utf-8").splitlines(keepends=True)
    (out / "records.jsonl").write_text("".join(text[:6]) + text[6][: len(text[6]) // 2], "utf-8")
    words = ("--only", "3", "--data-sets", "cub", "--limit", "2", *scorers)
    assert run(data, out, *words) == 0
    shown = capsys.readouterr()
    assert "4 prompts to generate for, 6 done before" in shown.err
    figures = json.loads((out / "imagerag.json").read_text("utf-8"))
    assert (
        figures["cost"]["images made by this command"] == 0
    )  # the images of the lost lines are in the store
    again = {entry["key"]: entry["picture"] for entry in lines(out)}
    assert again == {entry["key"]: entry["picture"] for entry in lines(table_3)}


def test_the_estimate_is_what_is_run(
    data: Path, table_3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--only", "3", "--data-sets", "cub", "--limit", "2", "--scorer", "none", "--estimate")
    assert run(data, tmp_path / "out", *words) == 0
    text = capsys.readouterr().err
    assert "10 prompts to generate for, 0 done before" in text
    low, high = text.split("images", 1)[1].split("\n")[0].split("to")
    made = json.loads((table_3 / "imagerag.json").read_text("utf-8"))["cost"]["images made by this command"]
    assert int(low) == 2 and int(high) == 10 and 2 <= made <= 10
    assert not (tmp_path / "out").exists()


def test_everything_that_is_missing_is_named_at_once_and_nothing_is_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "out", "--only", "5,6") == 1
    text = capsys.readouterr().err
    for part in ("Stanford Cars", "Stanford Dogs", "Oxford Flowers", "iNaturalist", "Aircraft", "license:"):
        assert part in text
    assert run(data, tmp_path / "out", "--only", "2", "--data-sets", "cub") == 1
    text = capsys.readouterr().err
    for part in ("clip:ViT-L-14", "siglip:ViT-B-16-SigLIP", "dino:FOLDER", "Apache-2.0"):
        assert part in text
    assert not (tmp_path / "out").exists()


def test_the_curve_of_pool_sizes_needs_a_generic_pool_and_takes_nested_parts_of_it(
    data: Path, scorers: list[str], tmp_path: Path
) -> None:
    generic = tmp_path / "generic"
    generic.mkdir()
    for number in range(8):
        draw(CLASSES[number % 3], 100 + number).save(generic / f"{number}.png")
    words = ("--only", "16", "--data-sets", "imagenet", "--limit", "1", "--pool-sizes", "2,6")
    assert run(data, tmp_path / "out", *words, "--generic", str(generic), *scorers) == 0
    sizes = {path.name.split("-")[1]: path for path in (tmp_path / "out/pools").iterdir()}
    parts = {size: {file.name for file in path.glob("*.png")} for size, path in sizes.items()}
    assert [len(parts["2"]), len(parts["6"])] == [2, 6] and parts["2"] < parts["6"]
    figures = json.loads((tmp_path / "out/imagerag.json").read_text("utf-8"))
    rows = [cell["row"] for cell in figures["tables"]["imagerag/16"] if cell["mean"] is not None]
    assert {"base model", "2 images (generic pool)", "6 images (generic pool)"} == set(rows)


def test_an_image_that_is_scored_against_may_not_be_in_the_generic_pool(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generic = tmp_path / "generic"
    generic.mkdir()
    real = next((data / "imagenet/val").rglob("*.JPEG"))
    shutil.copy(real, generic / "stray.jpg")
    words = ("--only", "6", "--data-sets", "imagenet", "--limit", "1", "--scorer", "none")
    assert run(data, tmp_path / "out", *words, "--generic", str(generic)) == 1
    assert "stray.jpg is an image that is scored against" in capsys.readouterr().err
    assert not (tmp_path / "out/records.jsonl").exists()


def test_unknown_tables_rows_and_data_sets_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, text in (
        (("--only", "9"), "accepted: tables 1, 2, 3"),
        (("--only", "2:captoins"), "Did you mean"),
        (("--data-sets", "coco"), "accepted: imagenet"),
        (("--pool-sizes", "many"), "must be numbers"),
        (("--pool-sizes", "0"), "must be numbers"),
        (("--generic", "nowhere"), "--generic 'nowhere': no such folder"),
    ):
        assert run(data, tmp_path / "out", *words) == 1
        assert text in capsys.readouterr().err


def test_a_folder_in_which_another_command_works_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(tmp_path):
        assert run(data, tmp_path, "--only", "3:base", "--scorer", "none") == 1
    assert "another command is at work there" in capsys.readouterr().err
    assert not (tmp_path / "records.jsonl").exists()


def test_a_file_is_no_folder_for_results(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results"
    file.write_text("", "utf-8")
    assert run(data, file, "--only", "3:base", "--scorer", "none") == 1
    assert f"--out {str(file)!r}: it is a file; must be a folder" in capsys.readouterr().err


def test_only_scorers_of_the_chosen_tables_are_needed(
    data: Path, scorers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data-sets", "cub", "--limit", "1", "--estimate")
    assert run(data, tmp_path, "--only", "1", *words) == 0
    text = capsys.readouterr().err
    assert "scorer " not in text and "not measured" not in text
    calls = int(text.split("MLLM calls", 1)[1].split()[0])
    assert run(data, tmp_path, "--only", "1", *words, *scorers) == 0
    text = capsys.readouterr().err
    assert "not measured: GPTScore, as there is no --scorer of GPTScore" in text
    assert (
        calls == int(text.split("MLLM calls", 1)[1].split()[0]) + 2 * 2
    )  # two questions on each of two images
    assert run(data, tmp_path, "--only", "2", *words) == 0
    assert "gptscore" not in capsys.readouterr().err


def test_two_scorers_of_the_same_score_are_refused(
    data: Path, scorers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "out", "--only", "2:base", *scorers, "--scorer", "clip:ViT-L-14=openai") == 1
    assert "--scorer 'clip:ViT-L-14=openai': measures CLIP-T as 'clip:local-dir:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_the_last_money_cut_short_is_made_anew_with_more(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    words = ("--only", "3:captions", "--data-sets", "cub", "--limit", "1", "--scorer", "none")
    with served(build_backend("mllm", load("pocket").mllm)) as server:
        mllm = f'backend="openai",base_url="{server.url}",model="{MODEL}"'
        priced = ("--set", f"mllm={{{mllm},prices={{{MODEL}={{read=10,written=10}}}}}}")
        assert run(data, tmp_path / "whole", *words, *priced, "--max-usd", "1") == 0
        (whole,) = lines(tmp_path / "whole")
        assert whole["usage"]["mllm_calls"] > 1 and whole["draft"] != whole["picture"]
        capsys.readouterr()
        less = f"{whole['usage']['usd'] / 2:.6f}"
        assert run(data, tmp_path / "out", *words, *priced, "--max-usd", less) == 1
        assert f"--max-usd {float(less):g} is used up" in capsys.readouterr().err
        assert not (tmp_path / "out/imagerag.md").exists()
        (cut,) = lines(tmp_path / "out")
        assert cut["ending"] == "stopped" and cut["usage"]["usd"] > 0
        assert run(data, tmp_path / "out", *words, *priced, "--max-usd", "1") == 0
    assert "1 prompts to generate for, 0 done before" in capsys.readouterr().err
    first, second = lines(tmp_path / "out")
    assert (first, second["picture"]) == (cut, whole["picture"])
    figures = json.loads((tmp_path / "out/imagerag.json").read_text("utf-8"))
    assert figures["cost"]["usd"] == pytest.approx(first["usage"]["usd"] + second["usage"]["usd"])


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--limit", "0", "'0': must be a whole number, 1 or more"),
        ("--images", "two", "'two': must be a whole number, 1 or more"),
        ("--seed", "-1", "'-1': must be a whole number, 0 or more"),
        ("--max-usd", "nan", "'nan': must be an amount of US dollars above 0"),
        ("--max-usd", "-2", "'-2': must be an amount"),
    ],
)
def test_unusable_numbers_are_refused_before_anything_is_read(
    option: str, value: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "none", tmp_path / "out", f"{option}={value}")
    assert text in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_place_where_nothing_can_be_written_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--only", "3:base", "--data-sets", "cub", "--limit", "1", "--scorer", "none")
    assert run(data, Path("/proc/results"), *words) == 1
    assert "/proc/results" in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(PleinairError, match="file/records.jsonl"):
        Records(tmp_path / "file/records.jsonl").add("key", fact=1)
