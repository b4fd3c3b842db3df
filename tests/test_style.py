"""The measures of style that a linter does not take."""

import ast
import re
from pathlib import Path
from statistics import median, quantiles

from support.source_tree import FILES, ROOT, functions, name

BANNED = {"utils", "util", "helpers", "common", "core", "manager", "misc", "shared"}
ONE_MACHINE = re.compile(r"(?<![\w.~])/(?:home|root|Users|opt|mnt)/")
TESTS = tuple(sorted((ROOT / "tests").rglob("*.py")))
LENGTHS = [(node.end_lineno or 0) - node.lineno + 1 for path in FILES for node in functions(path)]


def is_long(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether a function has more than 40 lines."""
    return (node.end_lineno or 0) - node.lineno + 1 > 40


def is_only_a_docstring(path: Path) -> bool:
    """Say whether a file holds one docstring and nothing else."""
    body = ast.parse(path.read_text("utf-8")).body
    return len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def most_lines(path: Path) -> int:
    """Say how long a file may be: a graph is wiring alone."""
    return 80 if path.parent.name == "graphs" else 250


def test_files_fit_in_250_lines() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert not [name(path) for path in FILES if lines[path] > most_lines(path)]


def test_functions_fit_in_40_lines() -> None:
    assert not [(name(path), node.name) for path in FILES for node in functions(path) if is_long(node)]


def test_most_functions_are_short() -> None:
    assert median(LENGTHS) <= 8
    assert quantiles(LENGTHS, n=10)[-1] <= 25


def test_init_is_a_docstring() -> None:
    rooms = [path for path in FILES if path.name == "__init__.py"]
    assert rooms
    assert not [name(path) for path in rooms if not is_only_a_docstring(path)]


def test_names_say_what_is_inside() -> None:
    parts = {path: set(path.relative_to(ROOT).with_suffix("").parts) for path in (*FILES, *TESTS)}
    assert not [name(path) for path, names in parts.items() if BANNED & names]


def test_text_names_no_place_of_one_machine() -> None:
    assert not [name(path) for path in FILES if ONE_MACHINE.search(path.read_text("utf-8"))]
