"""Bring a model's files from the hub: sizes and licence are told first; only what is opened comes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.app.models.inventory import Piece, in_words
from pleinair.app.trace.trace import counted
from pleinair.tools.model_files.hub import INDEX, first_line
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.types import PleinairError

SPARE = 2 * 2**30  # bytes that a download leaves free, for pictures and the run table
OFFLINE = "HF_HUB_OFFLINE is set, or local_files_only: nothing is asked of the hub and nothing downloaded"


@dataclass(frozen=True)
class Wanted:
    """Say what a model lacks."""

    piece: Piece
    patterns: tuple[str, ...]
    ignore: tuple[str, ...]
    files: dict[str, int]  # name → bytes
    licence: str

    @property
    def size(self) -> int:
        """Count the bytes to be downloaded."""
        return sum(self.files.values())

    @property
    def text(self) -> str:
        """Tell it in a line."""
        what = f"{counted(len(self.files), 'file')}, {in_words(self.size)}" if self.files else "all here"
        return (
            f"{self.piece.role}: {self.piece.model} at {self.piece.revision}, licence {self.licence}: {what}"
        )


def at_commit(piece: Piece) -> Piece:
    """Give a model at its commit; where the settings name none, at the one that the hub has now."""
    if piece.revision:
        return piece
    _require_online(bool(piece.table.get("local_files_only")))
    return piece.at(str(_card(piece.model).sha))


def require_room(plans: Sequence[Wanted]) -> None:
    """Refuse downloads that the disk of the cache has no room for."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    size, free = sum(plan.size for plan in plans), shutil.disk_usage(there).free
    if size and size + SPARE > free:
        raise DiskFull(
            f"The download is {in_words(size)}, and {there} has {in_words(free)} free, of which "
            f"{in_words(SPARE)} are left alone.",
            "Make room, or set HF_HUB_CACHE to a folder on another disk.",
        )


def wanted(piece: Piece) -> Wanted:
    """Ask the hub what a model lacks; of a pipeline its index, a few kilobytes, is fetched for that.

    Raises:
        BadInput: no commit is set, or the pipeline is of another class.
        PleinairError: offline, or the hub does not have it.
    """
    source = piece.source()
    _require_online(source.local_files_only)
    index = source.fetch((INDEX,)) if piece.kind == "pipeline" else Path()
    patterns, ignore = piece.files(index)
    return Wanted(piece, patterns, ignore, source.lacks(patterns, ignore), licence(piece))


def _require_online(local_files_only: bool) -> None:
    """Refuse where the user wants no connection."""
    from huggingface_hub import constants

    if local_files_only or constants.is_offline_mode():
        raise PleinairError(OFFLINE)


def licence(piece: Piece) -> str:
    """Ask the hub for a model's licence."""
    data = _card(piece.model, piece.revision).card_data
    named = (data.get("license_name") or data.get("license")) if data else None
    return str(named or piece.licence or "not named on its page")


def _card(model: str, revision: str | None = None) -> Any:
    """Ask the hub for a model's page, at the present commit unless another is named."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(model, revision=revision)
    except Exception as error:  # a broken connection is an error of the transport that the client uses
        raise PleinairError(f"{model}: {first_line(error)}") from error


def fetch(plan: Wanted) -> Path:
    """Download what is missing, with the hub's own bars of progress, and give the folder."""
    return plan.piece.source().download(plan.patterns, plan.ignore)
