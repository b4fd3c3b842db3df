"""Addresses of a library's folders: absolute paths without links, and URLs that fsspec understands."""

from __future__ import annotations

import os

from pleinair.tools.types import BadInput

_LOCAL = ("file", "local")


def is_url(folder: str) -> bool:
    """Return whether a library's folder is a URL of other places than this machine."""
    scheme, sign, _ = folder.partition("://")
    return bool(sign) and scheme.lower() not in _LOCAL


def address_of(folder: str) -> str:
    """Return a folder as an absolute path without links, and a URL in canonical form.

    Raise `BadInput` for a URL with a user, a password, a query or several protocols.
    """
    if not is_url(folder):
        path = folder.partition("://")[2] if "://" in folder else folder
        return os.path.realpath(os.path.expanduser(path))
    scheme, _, rest = folder.partition("://")
    host = rest.partition("/")[0]
    if "::" in folder or "@" in host or "?" in rest or "#" in rest:
        raise BadInput(
            f"{scheme}://{host.rpartition('@')[2]}: a library's URL has no user, password, query or `::`.",
            "Credentials come from the environment, as the driver of the storage documents it.",
        )
    return f"{scheme}://{rest.rstrip('/')}"
