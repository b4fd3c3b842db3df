"""Hard rules of style that a linter does not check; sizes and wording are targets, in `style_report`."""

import ast
import re
from pathlib import Path

from support.source_tree import FILES, ROOT, name

BANNED = {"utils", "util", "helpers", "common", "core", "manager", "misc", "shared"}
ONE_MACHINE = re.compile(r"(?<![\w.~])/(?:home|root|Users|opt|mnt)/")
TESTS = tuple(sorted((ROOT / "tests").rglob("*.py")))


def is_only_a_docstring(path: Path) -> bool:
    """Say whether a file holds one docstring and nothing else."""
    body = ast.parse(path.read_text("utf-8")).body
    return len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def test_init_is_a_docstring() -> None:
    folders = [path for path in FILES if path.name == "__init__.py"]
    assert folders
    assert not [name(path) for path in folders if not is_only_a_docstring(path)]


def test_names_say_what_is_inside() -> None:
    parts = {path: set(path.relative_to(ROOT).with_suffix("").parts) for path in (*FILES, *TESTS)}
    assert not [name(path) for path, names in parts.items() if BANNED & names]


def test_text_names_no_place_of_one_machine() -> None:
    assert not [name(path) for path in FILES if ONE_MACHINE.search(path.read_text("utf-8"))]
