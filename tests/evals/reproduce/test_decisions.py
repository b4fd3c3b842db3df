"""Appendix E.5 of ImageRAG on a tiny iNaturalist, and the guard of money."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.paper_data import CLASSES, write_data
from support.plugins import install_package

from pleinair.app.settings import load
from pleinair.evals.__main__ import main
from pleinair.evals.reproduce import decisions, imagerag
from pleinair.evals.reproduce.experiment import Options, Setup
from pleinair.evals.reproduce.generate import Studio
from pleinair.evals.reproduce.records import Records
from pleinair.tools.data_sets.data_set import DataSet, Example
from pleinair.tools.data_sets.recognise import LAYOUTS


def command(data: Path, out: Path, *words: str) -> list[str]:
    return [
        "imagerag",
        "--data",
        str(data),
        "--profile",
        "pocket",
        "--scorer",
        "none",
        "--out",
        str(out),
        *words,
    ]


def test_every_class_is_asked_for_alone_with_each_other_and_in_place_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", "inaturalist", train=1, test=1)
    out, words = tmp_path / "out", ("--only", "E.5", "--data-sets", "inaturalist")
    without = command(data, out, *words, "--estimate")
    without = [word for word in without if word not in ("--scorer", "none")]  # decisions need no weights
    assert main(without) == 0
    assert "missing" not in capsys.readouterr().err
    assert main(command(data, out, *words, "--estimate")) == 0
    text = capsys.readouterr().err
    assert "MLLM calls  15 to 30" in text and "seconds     unknown" in text
    assert main(command(data, out, *words)) == 0
    page = (out / "imagerag.md").read_text("utf-8")
    assert "## Appendix E.5: " in page and "Settings of the rows" not in page
    assert "which the paper does not use" not in page  # it is about images
    entries = list(Records(out / "records.jsonl"))
    assert len(entries) == 3 + 6 + 6 and not (out / "images/steps").exists()
    names = [entry["prompt"] for entry in entries if " and " not in entry["prompt"]]
    assert all(sum(name in prompt for prompt in names) == 3 for name in CLASSES)
    (table,) = json.loads((out / "imagerag.json").read_text("utf-8"))["tables"].values()
    by_column = {cell["measure"]: cell for cell in table}
    assert [cell["n"] for cell in table] == [3, 6, 6]
    for column, match in (("a photo of a X", True), ("X and a Y", False), ("a photo of a Y", False)):
        right = [
            (entry["answer"] == "match") == match
            for entry in entries
            if (" and " in entry["prompt"]) == ("and" in column)
            and (column != "a photo of a X" or entry in own(entries))
            and (column != "a photo of a Y" or entry not in own(entries))
        ]
        assert by_column[column]["mean"] == pytest.approx(100 * sum(right) / len(right))
    (out / "records.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries[:5]), "utf-8")
    capsys.readouterr()
    assert main(command(data, out, *words, "--estimate")) == 0
    text = capsys.readouterr().err
    low, high = (float(part) for part in text.split("\nseconds", 1)[1].split("\n")[0].split(" to "))
    asked = sorted(entry["usage"]["seconds"] for entry in entries[:5])
    assert "MLLM calls  10 to 20" in text and low == pytest.approx(10 * asked[2], abs=0.011) and high > low
    assert main(command(data, out, *words)) == 0
    lines = (out / "records.jsonl").read_text("utf-8")
    assert len(lines.splitlines()) == 15
    assert main(command(data, out, *words)) == 0
    assert (out / "records.jsonl").read_text("utf-8") == lines


def test_there_are_780_prompts_of_the_first_20_of_1000_classes(tmp_path: Path) -> None:
    names = tuple(f"bird {number}" for number in range(1100))
    images = tuple(
        Example(f"{n}/{k}.jpg", name, (), "test") for n, name in enumerate(names) for k in range(12)
    )
    options, layout = Options((), tmp_path), LAYOUTS[decisions.DATA_SET]
    test = imagerag.class_test(DataSet(layout, tmp_path, names, images), options)
    assert len(test.subjects) == 1000 and {len(subject.truth) for subject in test.subjects} == {10}
    settings = load("pocket")
    setup = Setup(options, settings, {}, {decisions.DATA_SET: test}, Studio(tmp_path))
    assert decisions.decisions(settings, options).answers(setup) == 780


def test_to_decline_is_a_wrong_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install_package(tmp_path / "site", "mute", "[pleinair.mllm]\nmute = mute_model:build\n")
    model = (
        "from support.fake_engines import ScriptedChat\n"
        "def build():\n    return ScriptedChat(policy=lambda *_: 'I would rather not say.')\n"
    )
    (site / "mute_model.py").write_text(model, encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    data, out = write_data(tmp_path / "data", "inaturalist", train=1, test=1), tmp_path / "out"
    words = ("--only", "E.5", "--data-sets", "inaturalist", "--set", 'mllm={backend="mute"}')
    assert main(command(data, out, *words)) == 0
    assert {entry["answer"] for entry in Records(out / "records.jsonl")} == {"declined"}
    (table,) = json.loads((out / "imagerag.json").read_text("utf-8"))["tables"].values()
    assert [cell["mean"] for cell in table] == [0, 0, 0]


def own(entries: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the questions about the image's own class: the first of each five."""
    return entries[::5]


def test_a_model_that_costs_money_needs_a_limit_and_a_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    data = write_data(tmp_path / "data", "cub", train=1, test=1)
    words = ["--only", "3", "--data-sets", "cub", "--set", 'mllm={backend="openai",model="gpt-unheard-of"}']
    assert main(command(data, tmp_path / "out", *words)) == 1
    assert "Pass --max-usd" in capsys.readouterr().err
    assert main(command(data, tmp_path / "out", *words, "--max-usd", "1")) == 1
    assert "no price is known" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_decisions_and_ratings_that_cost_money_need_a_limit_and_are_priced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    data, out = write_data(tmp_path / "data", "inaturalist", train=1, test=1), tmp_path / "out"
    paid = ["--data-sets", "inaturalist", "--set", 'mllm={backend="openai",model="gpt-5.4-mini"}']
    assert main(command(data, out, "--only", "E.5", *paid)) == 1
    text = capsys.readouterr().err
    assert "US dollars  0.0" in text and "Pass --max-usd; the estimate is 0.0" in text
    assert main(command(data, out, "--only", "2:base", *paid, "--scorer", "gptscore")) == 1
    text = capsys.readouterr().err
    assert "MLLM calls  6 to 12" in text and "Pass --max-usd" in text  # two questions on each of three images
    assert not out.exists()
