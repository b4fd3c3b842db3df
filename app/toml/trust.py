"""Trust in the settings file of a folder: what somebody else wrote there is obeyed once the user allows it.

Such a file could send a key of the environment to a foreign server, spend money, or read and write elsewhere.
So a `pleinair.toml` of the current folder may set only what `HARMLESS` lists, until `pleinair trust` stores
its checksum, which covers the profiles that it names by path; after a change it must be trusted again.
PLEINAIR_TRUST=all trusts every folder, PLEINAIR_TRUST=none leaves the other keys out.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pleinair.app.paths import places
from pleinair.app.toml.trees import Tree, leaves, nested
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

Untrusted = Literal["refuse", "ignore"]
FILE = "pleinair.toml"
VARIABLE = "PLEINAIR_TRUST"
HARMLESS = ("image", "crops", "leak", "output", "retrieval.k", "retrieval.threshold")  # tables and keys
_SHOWN = 5  # keys in a message


def trusted_part(path: Path, tree: Tree, untrusted: Untrusted) -> Tree:
    """Return the keys of a folder's settings file that may be obeyed.

    Raise `BadInput` for other keys of a file that is not trusted, or leave them out, as `untrusted` says.
    """
    policy = os.environ.get(VARIABLE, "")
    if policy not in ("", "all", "none"):
        raise BadInput(f"{VARIABLE} = {policy!r}: must be all, none or empty")
    keys = guarded_keys(tree)
    if not keys or policy == "all" or (not policy and is_trusted(path)):
        return tree
    if not policy and untrusted == "refuse":
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        raise BadInput(
            f"{path.absolute()} sets {', '.join(keys[:_SHOWN])}{more}: not obeyed, as this folder is not "
            "trusted",
            "Read the file, then run `pleinair trust`. PLEINAIR_TRUST=none leaves these keys out.",
        )
    return nested({key: value for key, value in leaves(tree) if _is_harmless(key)})


def guarded_keys(tree: Tree) -> list[str]:
    """List the dotted keys of a file that need trust."""
    return [key for key, _ in leaves(tree) if not _is_harmless(key)]


def _is_harmless(key: str) -> bool:
    return key in HARMLESS or key.startswith(tuple(f"{name}." for name in HARMLESS))


def is_trusted(path: Path) -> bool:
    """Return whether the user has trusted a file as it is now."""
    return _read().get(str(path.absolute())) == _checksum(path)


def trust(path: Path) -> None:
    """Store that a file is trusted as it is now; raise `BadInput` if there is none."""
    if not path.is_file():
        raise BadInput(f"{path.absolute()}: no such file")
    _write(_read() | {str(path.absolute()): _checksum(path)})


def distrust(path: Path) -> None:
    """Store that a file is no longer trusted."""
    _write({name: checksum for name, checksum in _read().items() if name != str(path.absolute())})


def _checksum(path: Path) -> str:
    """Return the checksum of a file and of the profiles that it names by path."""
    digest, waiting, seen = hashlib.sha256(), [path], set[Path]()
    while waiting:
        file = waiting.pop().absolute()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        data = file.read_bytes()
        digest.update(hashlib.sha256(data).digest())
        with suppress(tomllib.TOMLDecodeError, UnicodeDecodeError):
            tree = tomllib.loads(data.decode())
            names = (tree.get(key) for key in ("profile", "extends"))
            waiting += [Path(name) for name in names if isinstance(name, str) and name.endswith(".toml")]
    return digest.hexdigest()


def _read() -> dict[str, str]:
    try:
        stored = json.loads((places().home / "trusted.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # nothing is trusted
    return stored if isinstance(stored, dict) else {}


def _write(stored: dict[str, str]) -> None:
    write_whole(places().home / "trusted.json", json.dumps(stored, indent=1, sort_keys=True).encode() + b"\n")
