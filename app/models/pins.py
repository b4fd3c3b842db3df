"""Commits of models whose profile names none: `pleinair models pull` takes each once, later runs keep to it.

They are one small file in the home. A commit that the settings name goes before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pleinair.app.paths import Paths, places
from pleinair.tools.model_files.hub import COMMIT
from pleinair.tools.model_files.open_clip import is_unpinned, label
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

Tree = dict[str, Any]
PARTS = {  # what the names of an engine's hub models begin with
    "in_context": ("",),
    "text_only": ("",),
    "ip_adapter": ("", "adapter_"),
    "controlnet": ("", "controlnet_"),
}
TABLES = (("generator",), ("encoder",), ("retrieval", "second"))


def kept(home: Paths) -> dict[str, str]:
    """Read the commits by model; raises `BadInput` for a file that is none."""
    path = home.commits
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(f"{path}: not readable as JSON: {error}; without it commits are taken anew") from error
    if not isinstance(read, dict) or not all(COMMIT.fullmatch(str(commit)) for commit in read.values()):
        raise BadInput(f"{path}: wanted a commit of 40 hexadecimal digits for each model")
    return read


def keep(home: Paths, taken: Mapping[str, str]) -> Path:
    """Add commits to those that are kept; gives the file."""
    data = json.dumps(kept(home) | dict(taken), indent=1, sort_keys=True).encode() + b"\n"
    write_whole(home.commits, data)
    return home.commits


def pinned(tree: Tree) -> Tree:
    """Give a layer of settings with the kept commits of models that have none in `tree`."""
    lacking = list(_unpinned(tree))
    if not lacking:
        return {}
    known, layer = kept(places(str(_table_of(tree, ("paths",)).get("home", "")))), dict[str, Any]()
    for place, key, model in lacking:
        if commit := known.get(model):
            inner = layer
            for name in place:
                inner = inner.setdefault(name, {})
            inner |= {"backend": _table_of(tree, place)["backend"], key: commit}
    return layer


def require_pins(settings: BaseModel) -> None:
    """Refuse a model without a commit before anything is written, and say what brings one."""
    tree = settings.model_dump(mode="json")
    for place, key, model in _unpinned(tree):
        raise BadInput(
            f"{'.'.join(place)}.{key} = '': {model} is at no commit yet.",
            f"`pleinair models pull {tree.get('profile')}` takes the present one and keeps it; or set "
            "the key to one of your own.",
        )


def _unpinned(tree: Tree) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """List the hub models without a commit: their table, the key of the commit, and the model."""
    for place in TABLES:
        table = _table_of(tree, place)
        if table.get("backend") == "open_clip" and is_unpinned(table):
            yield place, "commit", label(table)
        for part in PARTS.get(str(table.get("backend")), ()) if place == ("generator",) else ():
            model, commit = table.get(f"{part}model"), table.get(f"{part}revision")
            if model and not commit and not table.get(f"{part}folder"):
                yield place, f"{part}revision", str(model)


def _table_of(tree: Tree, place: tuple[str, ...]) -> Tree:
    """Give a table of a tree, empty where there is none."""
    for name in place:
        inner = tree.get(name) if isinstance(tree, dict) else None
        tree = inner if isinstance(inner, dict) else {}
    return tree
