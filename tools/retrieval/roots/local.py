"""Folder or container on this machine as one of a library's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval.containers.container import LocalFile, RandomAccess
from pleinair.tools.retrieval.containers.listing import Stamp
from pleinair.tools.retrieval.walk import Listing, list_folders
from pleinair.tools.storage.files import stamp_of


class LocalRoot:
    """Folder, or file that is a container, whose path is absolute and without links."""

    def __init__(self, path: Path) -> None:
        """Store the path; nothing is opened yet."""
        self.path, self.address = path, str(path)

    def stamp(self, path: str) -> Stamp | None:
        """Return size and mtime in nanoseconds of a file; None without one."""
        return stamp_of(self._full(path))

    def read(self, path: str, limit: int) -> bytes:
        """Return the first bytes of a regular file, at most `limit`; raise `OSError` if it cannot be read."""
        full = Path(self._full(path))
        if not full.is_file():  # a pipe would wait for ever
            raise OSError("not a regular file")
        with full.open("rb") as file:
            return file.read(limit)

    def open(self, path: str) -> RandomAccess:
        """Open a file for reading any part of it; raise `OSError` if that fails."""
        return LocalFile(self._full(path))

    def _full(self, path: str) -> str:
        return f"{self.address}/{path}" if path else self.address


def list_local(
    roots: Sequence[LocalRoot], on_pause: Callable[[], None] = no_callback
) -> dict[LocalRoot, Listing]:
    """List the files of local roots, which may have links to each other."""
    folders = [root for root in roots if root.path.is_dir()]
    listings = list_folders([root.path for root in folders], on_pause)
    files = {root: Listing(others=[""]) for root in roots if root not in folders}
    return dict(zip(folders, listings, strict=True)) | files
