"""Find engines and graphs by name, ours and third parties' alike, through entry points.

A plug-in declares `name = "module:attribute"` in the group `pleinair.generator`, `pleinair.encoder`,
`pleinair.mllm` or `pleinair.graph` of its packaging. Nothing is imported until it is asked for by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

from pleinair.tools.types import BadInput, PleinairError

Kind = Literal["generator", "encoder", "mllm", "graph"]

# What importing someone else's module may raise; a plug-in that exits or is interrupted passes through.
FAULTS = (
    ImportError,
    AttributeError,
    SyntaxError,
    NameError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
)


class BrokenPlugin(PleinairError):
    """An installed engine cannot be loaded, or two claim one name."""


def names(kind: Kind) -> list[str]:
    """List the names that `resolve` knows for a kind, sorted; imports nothing."""
    return sorted({point.name for point in _points(kind)})


def resolve(kind: Kind, name: str) -> Any:
    """Import and return what `name` stands for.

    Raise `BadInput` for an unknown name, `BrokenPlugin` when its import fails or two distributions claim it.
    """
    found = [point for point in _points(kind) if point.name == name]
    if not found:
        raise BadInput(_unknown(kind, name))
    if len(found) > 1:
        owners = " and ".join(sorted(_owner(point) for point in found))
        raise BrokenPlugin(f"The {kind} `{name}` is claimed by {owners}.", "Uninstall one of them.")
    return _load(kind, found[0])


def _points(kind: Kind) -> tuple[EntryPoint, ...]:
    return tuple(point for point in _declared(tuple(sys.path)) if point.group == f"pleinair.{kind}")


@lru_cache(maxsize=4)
def _declared(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Read what the distributions on a path declare, once: it takes a third of a quick run's time."""
    declared = entry_points()
    return tuple(point for kind in get_args(Kind) for point in declared.select(group=f"pleinair.{kind}"))


def _load(kind: Kind, point: EntryPoint) -> Any:
    try:
        return point.load()
    except FAULTS as error:
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
