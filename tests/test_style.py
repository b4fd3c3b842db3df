"""The measures of style that a linter does not take."""

import ast
import re
from pathlib import Path
from statistics import median, quantiles

import pytest
from tree import FILES, ROOT, functions, name

BANNED = {"utils", "util", "helpers", "common", "core", "manager", "misc", "shared"}
ONE_MACHINE = re.compile(r"(?<![\w.~])/(?:home|root|Users|opt|mnt)/")
TESTS = tuple(sorted((ROOT / "tests").rglob("*.py")))
LENGTHS = [(node.end_lineno or 0) - node.lineno + 1 for path in FILES for node in functions(path)]


def is_long(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether a function has more than 40 lines."""
    return (node.end_lineno or 0) - node.lineno + 1 > 40


@pytest.mark.parametrize("path", FILES, ids=name)
def test_file_fits_in_250_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= (80 if path.parent.name == "graphs" else 250)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_functions_fit_in_40_lines(path: Path) -> None:
    assert not [node.name for node in functions(path) if is_long(node)]


def test_most_functions_are_short() -> None:
    assert median(LENGTHS) <= 8
    assert quantiles(LENGTHS, n=10)[-1] <= 25


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=name)
def test_init_is_a_docstring(path: Path) -> None:
    (only,) = ast.parse(path.read_text("utf-8")).body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=name)
def test_name_says_what_is_inside(path: Path) -> None:
    assert not BANNED.intersection(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_text_names_no_place_of_one_machine(path: Path) -> None:
    assert not ONE_MACHINE.findall(path.read_text("utf-8"))
