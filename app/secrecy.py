"""Keep secrets out of settings: settings are written into records, and the environment is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pleinair.tools.types import BadInput

SECRET = re.compile(r"(^|[_-])(api_?key|key|secret|password|token)$", re.IGNORECASE)
CREDENTIALS = re.compile(r"://[^/\s]*@")


def refuse_secrets(table: str, arguments: dict[str, Any]) -> None:
    """Raise `BadInput` for an argument that is a secret by its name or form; its value is not repeated."""
    for place, value in leaves(arguments, table):
        if SECRET.search(place.rpartition(".")[2]):
            raise BadInput(
                f"{place}: a secret has no place in settings, which every record repeats; put it into an "
                "environment variable, such as OPENAI_API_KEY"
            )
        if isinstance(value, str) and CREDENTIALS.search(value):
            raise BadInput(
                f"{place}: an address with a password has no place in settings; leave the password out"
            )


def leaves(tree: dict[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    """Give each value of nested tables with its dotted place."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{place}.{key}")
        else:
            yield f"{place}.{key}", value
