"""The project's source files, their module names and their imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYERS = ("tools", "agent", "graphs", "app", "evals")  # a folder imports only from those to its left
FILES = tuple(sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")))


def name(path: Path) -> str:
    """Return a file's path below the root, for test ids and messages."""
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    """Return the import name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("pleinair", *(part for part in parts if part != "__init__")))


MODULES = frozenset(module(path) for path in FILES)


def imports(path: Path) -> Iterator[str]:
    """Yield every module of the project that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pleinair."))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pleinair"):
            yield from (_module_of(f"{node.module}.{alias.name}") for alias in node.names)


def _module_of(target: str) -> str:
    return target if target in MODULES else target.rpartition(".")[0]
