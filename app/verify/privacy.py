"""Removal of private data from a report: paths, keys, addresses, and the names of the user and the machine.

Applied to every text before it is written. Not covered: what images show, and captions of a library that was
named for the images.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATH, SECRET, ADDRESS, USER, HOST, FOLDER = "(path)", "(secret)", "(address)", "(user)", "(host)", "(folder)"
_PUBLIC = re.compile(
    r"(^|\.)(huggingface\.co|github\.com|openai\.com|pytorch\.org|nvidia\.com|localhost|127\.0\.0\.1)$"
)
_URL = re.compile(r"(?:https?|file)://[^\s'\"<>)\]]+")
_QUOTED = re.compile(r"(['\"`])(?:~|[A-Za-z]:)?[/\\][^'\"`]*[/\\][^'\"`]*\1")  # a path that may have spaces
# a path from the root or the home, or of a drive; not a fraction, such as 3/4, or a unit, such as img/s
_PATHS = re.compile(r"(?<![\w/:.~)])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\"`,;:()\[\]<>|]+)+[/\\]?")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)
_LEAST_NAME, _LEAST_SECRET = 3, 8  # characters; shorter ones are parts of other words


class Scrubber:
    """Replaces what identifies somebody by a placeholder, in any JSON value.

    Args:
        folders: further places whose names are replaced, such as those of the user's libraries.
    """

    def __init__(self, folders: Iterable[str | Path] = ()) -> None:
        self._exact: list[tuple[str, str]] = []
        secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
        self._exact += [(value, SECRET) for value in secrets if len(value) >= _LEAST_SECRET]
        places = {str(Path(place).expanduser()) for place in (Path.home(), Path.cwd(), *folders)}
        self._exact += [(place, PATH) for place in places if len(place) >= _LEAST_NAME]
        names = {Path(folder).name: FOLDER for folder in folders} | _own_names()
        self._names = [
            (re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE), placeholder)
            for name, placeholder in names.items()
            if len(name) >= _LEAST_NAME
        ]
        self._exact.sort(key=lambda pair: -len(pair[0]))  # of two that begin alike the longer one

    def clean(self, value: Any) -> Any:
        """Return a JSON value whose texts, keys excepted, are without private data."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.clean(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(each) for each in value]
        return value

    def text(self, text: str) -> str:
        """Return a text without private data."""
        text = _URL.sub(lambda match: _public(match[0]), text)
        text = _QUOTED.sub(lambda match: f"{match[1]}{PATH}{match[1]}", text)
        for exact, placeholder in self._exact:
            text = text.replace(exact, placeholder)
        text = re.sub(rf"{re.escape(PATH)}[^\s'\"`,;:()\[\]<>|]+", PATH, text)  # what is below such a place
        text = _PATHS.sub(lambda match: match[0] if _is_short(match[0]) else PATH, text)
        for pattern, placeholder in self._names:
            text = pattern.sub(placeholder, text)
        return text


def _own_names() -> dict[str, str]:
    """Return the names of the user and the machine, with their placeholders; none for a general user."""
    names = {socket.gethostname(): HOST, socket.gethostname().partition(".")[0]: HOST, Path.home().name: USER}
    with suppress(KeyError, OSError):  # a user without an entry, as in a container
        names[getpass.getuser()] = USER
    return {name: placeholder for name, placeholder in names.items() if name not in ("root", "user", "home")}


def _public(url: str) -> str:
    """Return an address as it is if it is a public one, without user and query."""
    parts = urlsplit(url)
    if parts.hostname and _PUBLIC.search(parts.hostname) and "@" not in parts.netloc:
        return url.partition("?")[0]
    return ADDRESS


def _is_short(text: str) -> bool:
    """Return whether a match is a command such as `/s` and no path: one part without a home or a drive."""
    return text.count("/") + text.count("\\") == 1 and text[0] in "/\\"
