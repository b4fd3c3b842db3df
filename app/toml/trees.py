"""Trees of settings: tables in each other, read from TOML, merged, and addressed by dotted keys."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pleinair.tools.types import BadInput

Tree = dict[str, Any]

MAX_KEY = 200  # characters of a key or value in a message
_MAX_DEPTH = 16  # tables and lists in each other
_MAX_BITS = 64  # of a whole number


def read_toml(path: Path) -> Tree:
    """Read a settings file; raise `BadInput` for one that cannot be read, or is no plain TOML."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
        raise BadInput(f"{path}: invalid TOML: {_reason(error)}") from error
    _require_plain(tree, str(path))
    return tree


def read_value(key: str, text: str) -> Any:
    """Read the value of a key; a text that is not TOML is a string, and `BadInput` one that no key takes."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{key[:MAX_KEY]}: {_reason(error)}") from error
    _require_plain(value, key[:MAX_KEY])
    return value


def _reason(error: ValueError | RecursionError) -> str:
    """Return why TOML cannot be read; Python's own texts about numbers and nesting help nobody."""
    if isinstance(error, RecursionError):
        return "tables or lists are nested too deeply"
    is_ours = isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError)
    return str(error) if is_ours else "a number has too many digits"


def _require_plain(value: Any, name: str) -> None:
    """Raise `BadInput` for tables and lists that are nested too deeply, and for numbers beyond 64 bits."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise BadInput(f"{name}: tables or lists are nested too deeply; must be at most {_MAX_DEPTH}")
        if isinstance(item, int) and item.bit_length() > _MAX_BITS:
            raise BadInput(f"{name}: a number has too many digits; must be a number of {_MAX_BITS} bits")
        if isinstance(item, dict | list):
            waiting += [(inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item)]


def leaves(tree: Tree, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of all values, and of empty tables."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def has(tree: Any, place: Sequence[str]) -> bool:
    """Return whether a tree has a value or table in a place."""
    return not place or (isinstance(tree, dict) and place[0] in tree and has(tree[place[0]], place[1:]))


def value_at(tree: Any, key: str) -> Any:
    """Return the value or table of a dotted key, None if there is none."""
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def table_at(tree: Tree, key: str) -> Tree:
    """Return the table of a dotted key, an empty one if there is none."""
    table = value_at(tree, key)
    return table if isinstance(table, dict) else {}


def nested(flat: Mapping[str, Any]) -> Tree:
    """Return the tree of dotted keys; raise `BadInput` for an impossible key."""
    tree: Tree = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        if len(parents) > _MAX_DEPTH or not all((*parents, last)):
            raise BadInput(f"{key[:MAX_KEY]!r}: no such setting; must be a name like retrieval.k")
        table = tree
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise BadInput(f"{key} = {value!r}: {parent!r} is set both to a value and to a table")
        value, before = deepcopy(value), table.get(last)
        is_table = isinstance(before, dict) and isinstance(value, dict)
        table[last] = merged(before or {}, value) if is_table else value
    return tree


def merged(weak: Tree, strong: Tree) -> Tree:
    """Return a tree over a weaker one; a table with another backend replaces the weaker table as a whole."""
    if strong.get("backend", weak.get("backend")) != weak.get("backend"):
        return strong
    if strong.get("method", weak.get("method")) != weak.get("method"):
        weak = {key: value for key, value in weak.items() if key != "arguments"}  # of another method
    weak = {key: value for key, value in weak.items() if key not in _other_locations(strong)}
    tables = [key for key in strong if isinstance(strong[key], dict) and isinstance(weak.get(key), dict)]
    return weak | strong | {key: merged(weak[key], strong[key]) for key in tables}


def _other_locations(table: Tree) -> set[str]:
    """Return the keys of a model's other location: a nearer folder replaces a model and a model a folder."""
    others = set[str]()
    for key, value in table.items():
        prefix = key.removesuffix("folder").removesuffix("model")
        if value and key.endswith("folder"):
            others |= {f"{prefix}model", f"{prefix}revision"}
        elif value and key.endswith("model"):
            others.add(f"{prefix}folder")
    return others
