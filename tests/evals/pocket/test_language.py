"""Tests of the measurement of how prompts are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pleinair.evals.pocket.language import CHANGES, PROMPTS, judge, main
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood

ROBIN = {"name": "robin", "count": 1, "size": "", "colour": ""}
TAXI = ROBIN | {"name": "taxi"}
ROW = {"subjects": [ROBIN, TAXI], "relation": "on", "background": "", "light": "", "weather": ""}


@pytest.mark.parametrize(
    ("prompt", "is_right"),
    [
        ("a robin on a taxi", True),
        ("a taxi under a robin", True),
        ("a taxi on a robin", False),
        ("a robin above a taxi", False),
        ("a robin on a taxi at night", False),
        ("two robins on a taxi", False),
        ("a robin on a zorgle", False),
    ],
)
def test_a_request_is_right_if_it_means_the_same(prompt: str, is_right: bool) -> None:
    assert judge(ROW | {"prompt": prompt}).is_right is is_right


def test_subjects_beside_each_other_have_no_order() -> None:
    row = ROW | {"relation": "beside"}
    assert judge(row | {"prompt": "a taxi and a robin"}).is_right
    assert not judge(row | {"prompt": "a taxi left of a robin"}).is_right


def test_what_cannot_be_drawn_must_be_refused_and_counts_its_nearest_name() -> None:
    outcome = judge({"prompt": "an osprey", "cause": "osprey", "nearest": ["bald eagle"]})
    assert outcome.is_right
    assert outcome.offers_nearest
    assert not judge({"prompt": "an osprey", "cause": "osprey", "nearest": ["puffin"]}).offers_nearest
    assert not judge({"prompt": "a robin", "cause": "robin", "nearest": []}).is_right


@pytest.mark.parametrize(
    ("change", "meant", "is_right"),
    [
        ("make it night", "a robin on a taxi at night", True),
        ("make it night", "a robin on a taxi", False),
        ("make it a wombat", None, True),
        ("make it night", None, False),
        ("make it a wombat", "a robin on a taxi", False),
    ],
)
def test_a_change_is_right_if_the_request_after_it_is_the_meant_one(
    change: str, meant: str | None, is_right: bool
) -> None:
    assert judge({"prompt": "a robin on a taxi", "change": change, "meant": meant}).is_right is is_right


def test_a_change_of_a_prompt_that_cannot_be_read_is_no_refused_change() -> None:
    with pytest.raises(NotUnderstood, match="wombat"):
        judge({"prompt": "a wombat", "change": "bigger", "meant": None})


def test_the_report_has_shares_and_the_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [ROW | {"prompt": "a robin on a taxi"}, ROW | {"prompt": "a taxi on a robin"}]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    main([str(file), "--show"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rows.jsonl: read as meant: 1 of 2, 50.0% (95 % Wilson 9.5% to 90.5%)"
    assert lines[1].strip() == "a taxi on a robin"


@pytest.mark.parametrize("path", PROMPTS + CHANGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_tables_are_read_as_meant(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    failures = [outcome.text for outcome in map(judge, rows) if not outcome.is_right]
    allowed = 0.12 if path == CHANGES[-1] else 0.02  # no rule was written for the last one
    assert len(failures) <= allowed * len(rows), failures
