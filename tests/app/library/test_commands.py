"""`pleinair library`: search, duplicates, gaps."""

import json
from pathlib import Path

from support.library_place import HOSTILE
from typer.testing import CliRunner

from pleinair.app.api import draw
from pleinair.app.cli.main import app


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["library", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout


def test_search_by_words_images_and_likeness(shelf: Path) -> None:
    text = run("search", "kestrel", "-k", 2)
    assert text.index("unlicensed.png") < text.index("a run uses no hit below this line (threshold 0.90)")
    assert (
        "a kestrel over a field (+1 caption)\n" in text and str(shelf / "library" / "unlicensed.png") in text
    )
    facts = json.loads(run("search", "--image", shelf / "library" / "2.png", "-k", 1, "--json"))
    assert facts["hits"][0]["hit"]["id"] == "2.png" and facts["threshold"] is None
    assert "copy of 1.png" in run("search", "--like", "1.png")


def test_nothing_fits_is_an_exit_code_and_bad_input_another(shelf: Path) -> None:
    assert run("search", "zubrin", code=1).startswith("nothing fits: ")
    assert json.loads(run("search", "zubrin", "--json", code=1))["abstained"]
    run("search", code=2)
    run("search", "wren", "--like", "1.png", code=2)
    run("search", "--like", "../1.png", code=2)
    run("search", "--image", shelf / "library" / "metadata.jsonl", code=2)


def test_duplicates_are_listed_and_nothing_is_deleted(shelf: Path) -> None:
    text = run("duplicates")
    assert "equal files, 2:" in text and text.endswith("1 group in 9 images\n")
    (group,) = json.loads(run("duplicates", "--json"))
    assert {copy["id"] for copy in group["copies"]} == {"1.png", "copy of 1.png"}
    assert (shelf / "library" / HOSTILE).is_file() and len(list((shelf / "library").glob("*.png"))) == 9


def test_the_gap_report(shelf: Path) -> None:
    assert run("gaps") == "0 gaps in 0 runs\n"
    result = draw("two things", seed=1)
    text = run("gaps", "--check")
    assert "second thing: 1 run, best " in text and "; still lacking" in text and result.run_id in text
    facts = json.loads(run("gaps", "--json"))
    assert facts["gaps"][0]["runs"] == [result.run_id] and facts["unreadable"] == 0
    assert json.loads(run("gaps", "--json", "--since", "2999-01-01"))["gaps"] == []
    run("gaps", "--since", "soon", code=2)
