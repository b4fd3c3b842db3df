"""Imports point one way: evals → app → graphs → agent → tools, the same inside app, and no cycle anywhere."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from support.source_tree import FILES, LAYERS, imports, module, name


def above(path: Path) -> tuple[str, ...]:
    """List the layers that a file must not import."""
    return LAYERS[LAYERS.index(module(path).split(".")[1]) + 1 :]


def relative(path: Path) -> list[int]:
    """List the lines with a relative import."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level]


def test_imports_point_down() -> None:
    arrows = [(path, target) for path in FILES for target in imports(path)]
    assert len(arrows) > len(FILES)
    assert not [(name(path), target) for path, target in arrows if target.split(".")[1] in above(path)]


def test_no_import_cycle() -> None:
    arrows = {module(path): set(imports(path)) - {module(path)} for path in FILES}
    assert set(TopologicalSorter(arrows).static_order())


def test_imports_are_absolute() -> None:
    assert not {name(path): lines for path in FILES if (lines := relative(path))}


def app_folder(target: str) -> str:
    """Return the subfolder of `app` that a module is in, "" for none."""
    parts = target.split(".")
    return parts[2] if parts[1] == "app" and len(parts) > 3 else ""


def test_folders_of_app_import_in_one_direction() -> None:
    folders = {module(path): app_folder(module(path)) for path in FILES}
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        if folder := folders[module(path)]:
            reached = {app_folder(target) for target in imports(path)} - {"", folder}
            arrows.setdefault(folder, set()).update(reached)
    assert {"cli", "runs", "storyboard"} <= set(arrows)
    order = tuple(TopologicalSorter(arrows).static_order())
    assert order.index("runs") < min(map(order.index, ("cli", "storyboard", "trace", "estimate", "doctor")))


TERMINAL = ("typer", "rich", "readline", "pleinair.app.cli")  # only the command line writes to a terminal


def test_only_the_command_line_knows_a_terminal() -> None:
    for path in FILES:
        if module(path).startswith("pleinair.app.") and app_folder(module(path)) != "cli":
            targets = {
                alias.name if isinstance(node, ast.Import) else str(node.module)
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names
            }
            assert not [target for target in targets if target.startswith(TERMINAL)], name(path)
