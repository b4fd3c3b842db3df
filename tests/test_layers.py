"""The arrows between the folders: evals → app → graphs → agent → tools, and no cycle anywhere."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from tree import FILES, LAYERS, imports, module, name


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path: Path) -> None:
    above = LAYERS[LAYERS.index(module(path).split(".")[1]) + 1 :]
    assert not [target for target in imports(path) if target.split(".")[1] in above]


def test_no_import_cycle() -> None:
    arrows = {module(path): set(imports(path)) - {module(path)} for path in FILES}
    assert set(TopologicalSorter(arrows).static_order())


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_are_absolute(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    assert not [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
