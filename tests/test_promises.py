"""What the page of promises names as its proof exists."""

import re

import pytest
from support.source_tree import ROOT

PAGE = (ROOT / "docs" / "promises.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| \d", line)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.split("|")[1].strip()))
def test_a_promise_names_tests_that_exist(row: str) -> None:
    _, _, shown, lacking = (cell.strip() for cell in row.strip("|").split("|"))
    paths = re.findall(r"`(tests/[\w/.]+)`", shown)
    text = "\n".join((ROOT / path).read_text("utf-8") for path in paths)
    assert paths
    assert all(f"def {name}(" in text for name in re.findall(r"`(test_\w+)`", shown))
    assert lacking


def test_every_promise_has_a_line() -> None:
    assert [row.split("|")[1].strip() for row in ROWS] == [*map(str, range(1, 19))]


@pytest.mark.parametrize("name", ["KILLS", "FUZZ", "PICTURES", "SECONDS"])
def test_a_number_that_makes_a_test_larger_is_read(name: str) -> None:
    assert any(f'"{name}"' in path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert f"({name})" in PAGE
