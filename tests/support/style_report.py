"""Report sizes and wording against the project's targets: `python -m tests.support.style_report`.

Targets, not limits: `tests/test_style.py` holds the few that are hard. Totals have none, because they grow
with what the program does; they stand beside those from before it read other people's libraries and servers.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[2]
LAYERS = ("tools", "agent", "graphs", "app", "evals")
TRAINING = ROOT / "tools" / "pocket" / "training"
VAGUE_NAMES = frozenset(
    "one found known told given able said whole kept good seen named chosen asked tried ended left own new "
    "old heard made taken drawn fixed wanted such there here came went".split()
)
VAGUE_VERBS = frozenset(
    "Give Say Tell Name Take Put Have Hold Know Go Come Bring Hear See Think Want".split()
)
LARGEST_ROOT = {"tools": 20, "agent": 12, "app": 12, "evals": 12}  # modules directly in a folder

Function = ast.FunctionDef | ast.AsyncFunctionDef


def source_files(*folders: str) -> list[Path]:
    """List the Python files of some folders, of all layers if none is named."""
    return sorted(path for folder in folders or LAYERS for path in (ROOT / folder).rglob("*.py"))


@cache
def parse(path: Path) -> ast.Module:
    """Parse a file once."""
    return ast.parse(path.read_text("utf-8"))


def module(path: Path) -> str:
    """Return the import name of a file."""
    return ".".join(("pleinair", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


@cache
def count_lines(path: Path) -> int:
    """Count the lines of a file."""
    return len(path.read_text("utf-8").splitlines())


def variable_names(path: Path) -> Iterator[str]:
    """Yield the name of every parameter and of every assignment to a variable."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def docstring_verbs(path: Path) -> Iterator[str]:
    """Yield the first word of every docstring."""
    for node in ast.walk(parse(path)):
        if isinstance(node, Function | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            yield re.split(r"\W", text.strip(), maxsplit=1)[0]


def used_names(path: Path) -> set[tuple[str, str]]:
    """Pair each module of the project with every name of it that a file imports or reads."""
    used: set[tuple[str, str]] = set()
    modules: dict[str, str] = {}
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pleinair"):
            used |= {(str(node.module), alias.name) for alias in node.names}
            modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            used.add((modules[node.value.id], node.attr))
    return used


def local_public_functions() -> list[str]:
    """List public module functions that no other file uses.

    Commands and entry points are left out, and what three files of a folder define: modules that are loaded
    by name share an interface.
    """
    readers = [*source_files(), *source_files("tests", "examples")]
    used = {(*name, path) for path in readers for name in used_names(path)}
    declared = (ROOT / "pyproject.toml").read_text("utf-8")
    elsewhere = Counter((module, name) for module, name, _ in used)
    public = [
        (path, node.name)
        for path in source_files()
        for node in parse(path).body
        if isinstance(node, Function) and not node.name.startswith("_") and not node.decorator_list
    ]
    files = Counter((path.parent, name) for path, name in public)
    return [
        f"{path.relative_to(ROOT)}:{name}"
        for path, name in public
        if name != "main" and f"{module(path)}:{name}" not in declared
        if not elsewhere[module(path), name] and files[path.parent, name] < 3
    ]


def function_lengths() -> list[int]:
    """List the lines of every function and method."""
    nodes = (node for path in source_files() for node in ast.walk(parse(path)))
    return [(node.end_lineno or 0) - node.lineno + 1 for node in nodes if isinstance(node, Function)]


def measure() -> dict[str, tuple[float, str]]:
    """Measure sizes and wording: for each measure its figure, and the target or what it was."""
    sources = source_files()
    product = [
        path for path in source_files("tools", "agent", "graphs", "app") if TRAINING not in path.parents
    ]
    names = [name for path in sources for name in variable_names(path)]
    verbs = [verb for path in sources for verb in docstring_verbs(path)]
    lengths = function_lengths()
    roots = {
        f"modules at the root of {folder}/": len([*(ROOT / folder).glob("*.py")]) for folder in LARGEST_ROOT
    }
    return {
        "source files": (len(sources), "217 before"),
        "source lines": (sum(map(count_lines, sources)), "27,477 before"),
        "lines of tools, agent, graphs, app without training": (
            sum(map(count_lines, product)),
            "21,755 before",
        ),
        "longest file": (max(map(count_lines, sources)), "100 to 400 is normal, 500 asks for two subjects"),
        "median function": (median(lengths), "at most 8"),
        "90th percentile function": (quantiles(lengths, n=10)[-1], "at most 25"),
        "longest function": (max(lengths), "40 or so"),
        "vague variable names, %": (100 * sum(name in VAGUE_NAMES for name in names) / len(names), "under 1"),
        "docstrings that begin with a vague verb": (sum(verb in VAGUE_VERBS for verb in verbs), "under 20"),
        "public functions that only their file uses": (len(local_public_functions()), "under 40"),
        **{
            title: (count, f"at most {LARGEST_ROOT[folder]}")
            for (title, count), folder in zip(roots.items(), LARGEST_ROOT, strict=True)
        },
    }


def _write(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")


def main() -> None:
    """Print every measure, then the longest files."""
    for title, (figure, target) in measure().items():
        _write(f"{figure:>10,.2f}".rstrip("0").rstrip(".").rjust(10), f" {title} ({target})")
    longest = sorted(source_files(), key=count_lines, reverse=True)[:8]
    _write("longest files: " + ", ".join(f"{path.relative_to(ROOT)} {count_lines(path)}" for path in longest))


if __name__ == "__main__":
    main()
