"""Commits of models whose profile names none: `pleinair models pull` pins each once, later runs load it.

They are one small file in the home. A commit in the settings takes precedence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pleinair.app.paths import Paths, places
from pleinair.app.toml.trees import Tree, nested, table_at
from pleinair.tools.model_files.hub import COMMIT
from pleinair.tools.model_files.open_clip import is_unpinned, model_label
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

HUB_GENERATORS = {"in_context", "text_only", "ip_adapter", "controlnet"}  # backends that load hub models
TABLES = ("generator", "encoder", "retrieval.second")


def read_pins(home: Paths) -> dict[str, str]:
    """Return the pinned commits by model; raise `BadInput` for a damaged file."""
    path = home.commits
    if not path.is_file():
        return {}
    try:
        pins = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(
            f"{path}: not readable as JSON: {error}.", "Delete it to pin commits again."
        ) from error
    if not isinstance(pins, dict) or not all(COMMIT.fullmatch(str(commit)) for commit in pins.values()):
        raise BadInput(f"{path}: wanted a commit of 40 hexadecimal digits for each model")
    return pins


def add_pins(home: Paths, pins: Mapping[str, str]) -> Path:
    """Add commits to the pinned ones; return the file."""
    data = json.dumps(read_pins(home) | dict(pins), indent=1, sort_keys=True).encode() + b"\n"
    write_whole(home.commits, data)
    return home.commits


def pinned_layer(tree: Tree) -> Tree:
    """Return a layer of settings with the pinned commits of the models in `tree` that have none."""
    unpinned, layer = list(_unpinned(tree)), dict[str, Any]()
    pins = read_pins(places(str(table_at(tree, "paths").get("home", "")))) if unpinned else {}
    for table, key, model in unpinned:
        if commit := pins.get(model):
            layer |= {f"{table}.backend": table_at(tree, table)["backend"], f"{table}.{key}": commit}
    return nested(layer)


def require_pins(settings: BaseModel) -> None:
    """Raise `BadInput` for a model without a commit, before anything is written."""
    tree = settings.model_dump(mode="json")
    for table, key, model in _unpinned(tree):
        raise BadInput(
            f"{table}.{key} = '': {model} is not pinned to a commit.",
            f"Run `pleinair models pull {tree.get('profile')}`, which pins the current one, or set the key.",
        )


def _unpinned(tree: Tree) -> Iterator[tuple[str, str, str]]:
    """Yield the hub models without a commit: their table, the key of the commit, and the model."""
    for name in TABLES:
        table = table_at(tree, name)
        if table.get("backend") == "open_clip" and is_unpinned(table):
            yield name, "commit", model_label(table)
        if name == "generator" and str(table.get("backend")) in HUB_GENERATORS:
            for prefix in (key.removesuffix("model") for key in table if key.endswith("model")):
                model, commit = table[f"{prefix}model"], table.get(f"{prefix}revision")
                if model and not commit and not table.get(f"{prefix}folder"):
                    yield name, f"{prefix}revision", str(model)
