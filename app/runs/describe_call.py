"""Say in a few words what a driving model's call does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 60  # characters of an argument that are told
ABOUT = ("concept", "wish", "picture", "ids", "reason")  # arguments, the first that a call has
MADE_FOR = ("repairs", "references")  # each names its concept


def about(call: Mapping[str, Any]) -> str:
    """Name what a call is about: its concept, the wish, a picture's number; "" for a call without any."""
    given: Mapping[str, Any] = call["args"]
    each = [str(one["concept"]) for key in MADE_FOR for one in given.get(key, ()) if isinstance(one, dict)]
    said = next((given[key] for key in ABOUT if key in given), list(dict.fromkeys(each)))
    words = ", ".join(map(str, said)) if isinstance(said, list | tuple) else str(said)
    return words if len(words) <= MOST else f"{words[: MOST - 1]}…"


def worded(call: Mapping[str, Any]) -> str:
    """Write a call as its verb and what it is about, such as "retrieve 'saverel wren'"."""
    what = about(call)
    return " ".join(filter(None, (call["name"], what if what.isdecimal() else what and repr(what))))
