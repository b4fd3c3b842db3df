"""Mutations of the source, read from the tables in `tests/mutations`, and the tests that must notice them."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.source_tree import ROOT

TABLES = ROOT / "tests" / "mutations"
SECONDS = 900  # of one mutation's tests; one that never ends is noticed
LEFT_OUT = (".venv", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "out", "reports")


class Unusable(Exception):
    """The text to replace is not in the file exactly once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """Replacement in one file, or in all files of a pattern, that breaks a row of `evals/PAPERS.md`."""

    id: str
    row: str  # of the paper, such as "ImageRAG 2"
    what: str  # is broken
    old: str
    new: str
    tests: tuple[str, ...]
    file: str = ""
    all_files: str = ""  # a pattern instead of `file`; those without the text stay

    @contextmanager
    def applied(self, tree: Path) -> Iterator[None]:
        """Change the tree, and restore it at the end.

        Raises:
            Unusable: the old text is not in the file exactly once.
        """
        before = {path: path.read_text("utf-8") for path in self._files(tree)}
        if not before or any(text.count(self.old) != 1 for text in before.values()):
            raise Unusable("not applied")
        try:
            for path, text in before.items():
                path.write_text(text.replace(self.old, self.new), "utf-8")
            yield
        finally:
            for path, text in before.items():
                path.write_text(text, "utf-8")

    def _files(self, tree: Path) -> list[Path]:
        if self.file:
            return [tree / self.file]
        return [path for path in sorted(tree.glob(self.all_files)) if self.old in path.read_text("utf-8")]


def read_mutations(ids: Sequence[str] = (), tables: Path = TABLES) -> list[Mutation]:
    """Read the mutations of the tables in a folder, all or those of the ids; exit for an unknown id."""
    entries = [
        entry
        for table in sorted(tables.glob("*.toml"))
        for entry in tomllib.loads(table.read_text("utf-8"))["mutation"]
    ]
    mutations = [Mutation(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
    if missing := set(ids) - {mutation.id for mutation in mutations}:
        raise SystemExit(f"no mutation has the id {', '.join(sorted(missing))}")
    return [mutation for mutation in mutations if not ids or mutation.id in ids]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutations that the command line names, all by default; return 0 if every one is killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids such as I2a; all by default")
    mutations = read_mutations(parser.parse_args(arguments).ids)
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        for mutation, state in run_all(mutations, tree):
            killed += state == "killed"
            sys.stdout.write(f"{mutation.id:5} {state:12} {mutation.what}\n")
            sys.stdout.flush()
    sys.stdout.write(f"killed {killed} of {len(mutations)}\n")
    return 0 if killed == len(mutations) else 1


def copy_tree(tree: Path) -> None:
    """Copy the source tree; the links of `.types` stay links, so that imports find the copy."""
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))


def run_all(mutations: Sequence[Mutation], tree: Path) -> Iterator[tuple[Mutation, str]]:
    """Yield each mutation with "killed", "survived", "not applied" or "red before" (red without it)."""
    passed: dict[tuple[str, ...], bool] = {}
    for mutation in mutations:
        if mutation.tests not in passed:
            passed[mutation.tests] = _pass(mutation.tests, tree)
        if not passed[mutation.tests]:
            yield mutation, "red before"
            continue
        try:
            with mutation.applied(tree):
                yield mutation, "survived" if _pass(mutation.tests, tree) else "killed"
        except Unusable as error:
            yield mutation, str(error)


def _pass(tests: Sequence[str], tree: Path) -> bool:
    """Return whether the tests pass in the tree; no test at all counts as failed."""
    environment = {**os.environ, "PYTHONPATH": str(tree / ".types"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
