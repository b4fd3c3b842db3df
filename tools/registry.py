"""Find backends and graphs by name through entry points, built-in and third-party ones alike.

A plug-in declares `name = "module:attribute"` in the group `pleinair.KIND` of its packaging, with one of the
kinds below. Nothing is imported until it is resolved by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

from pleinair.tools.types import BadInput, PleinairError

Kind = Literal[
    "generator", "encoder", "retriever", "mllm", "graph", "reader", "context", "exporter", "command"
]


class BrokenPlugin(PleinairError):
    """An installed backend cannot be loaded, or two distributions claim one name."""


def names(kind: Kind) -> list[str]:
    """List the names that `resolve` accepts for a kind, sorted, without importing anything."""
    return sorted({point.name for point in _points(kind)})


def resolve(kind: Kind, name: str) -> Any:
    """Import and return the object that is registered under `name`.

    Raise `BadInput` for an unknown name, `BrokenPlugin` when its import fails or two distributions claim it.
    """
    points = [point for point in _points(kind) if point.name == name]
    if not points:
        raise BadInput(_unknown(kind, name))
    if len(points) > 1:
        owners = " and ".join(sorted(_owner(point) for point in points))
        raise BrokenPlugin(f"The {kind} `{name}` is claimed by {owners}.", "Uninstall one of them.")
    return _load(kind, points[0])


def _points(kind: Kind) -> tuple[EntryPoint, ...]:
    return tuple(point for point in _declared(tuple(sys.path)) if point.group == f"pleinair.{kind}")


@lru_cache(maxsize=4)
def _declared(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Read the entry points of all distributions on a path, once: it takes a third of a quick run's time."""
    declared = entry_points()
    return tuple(point for kind in get_args(Kind) for point in declared.select(group=f"pleinair.{kind}"))


def _load(kind: Kind, point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:  # third-party code may raise anything when it is imported
        raise BrokenPlugin(
            f"The {kind} `{point.name}` of {_owner(point)} cannot be loaded from `{point.value}`: "
            f"{type(error).__name__}: {error}"
        ) from error


def _owner(point: EntryPoint) -> str:
    return f"`{point.dist.name} {point.dist.version}`" if point.dist else "an unnamed distribution"


def _unknown(kind: Kind, name: str) -> str:
    choices = names(kind)
    hint = did_you_mean(name, choices)
    return f"No {kind} is called `{name}`; there are: {', '.join(choices) or 'none installed'}.{hint}"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return a question with the closest choice to append to a message, empty if none is close."""
    close = get_close_matches(name, choices, n=1)
    return f" Did you mean `{close[0]}`?" if close else ""
