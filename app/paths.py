"""Locations of runs and caches on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from pleinair.app.runs.event_rows import EventRows
from pleinair.tools.storage.files import checked_path
from pleinair.tools.storage.folder import Folder
from pleinair.tools.types import NotFound

_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Paths:
    """Layout of the home folder, and of the storage that takes the place of a part of it.

    No folder is created until it is used. Device locks, caches and indexes are always in the home.
    """

    home: Path
    database: str = ""  # URL of the database of the runs; "": files of the home
    objects: str = ""  # URL of the images and files of the runs, in the same layout; "": the home
    vectors: str = ""  # URL of the database of libraries that machines share; "": indexes of the home

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which a process in any folder has the same paths."""
        shared = {"DATABASE": self.database, "OBJECTS": self.objects, "VECTORS": self.vectors}
        urls = {f"PLEINAIR_CLUSTER__{key}": url for key, url in shared.items() if url}
        return {"PLEINAIR_HOME": str(self.home), **urls}

    @property
    def table(self) -> Path | str:
        """Return the place of the run table: a SQLite file, or the URL of a database."""
        return self.database or self.table_file

    @property
    def table_file(self) -> Path:
        """Return the SQLite file of the run table, where no database is set."""
        return self.home / "runs.sqlite"

    @property
    def all_files(self) -> Folder:
        """Return the files of all runs that no database holds, below the runs' ids."""
        return Folder(self._stored("runs"))

    @property
    def input_images(self) -> Path | str:
        """Return the store of input images, for `ArtifactStore`."""
        return self._stored("given")

    def pictures(self, run_id: str) -> Path | str:
        """Return the store of a run's images, for `ArtifactStore`; raise `NotFound` for an invalid id."""
        return self._stored(f"runs/{self.run(run_id).name}/pictures")

    def files(self, run_id: str) -> Folder:
        """Return a run's other files that no database holds; raise `NotFound` for an invalid id."""
        return Folder(self._stored(f"runs/{self.run(run_id).name}"))

    @property
    def served_images(self) -> Path | str:
        """Return the store of the images of graphs on LangGraph's server, for `ArtifactStore`."""
        return self._stored("served/pictures")

    @property
    def cache(self) -> Path:
        """Return the folder of what can be built again: indexes, the pocket library."""
        return self.home / "cache"

    @property
    def captions(self) -> Path:
        """Return the file of the captions that an MLLM has written for images of libraries."""
        return self.home / "captions.jsonl"

    @property
    def commits(self) -> Path:
        """Return the file of the pinned commits of models."""
        return self.home / "commits.json"

    def run(self, run_id: str) -> Path:
        """Return a run's own folder on this machine; raise `NotFound` for an invalid id."""
        if not _RUN_ID.fullmatch(run_id):
            raise NotFound(f"run {run_id!r}: not a run id", "`pleinair runs list` shows them.")
        return self.home / "runs" / run_id

    def events(self, run_id: str) -> Path | EventRows:
        """Return a run's event log: a file, or rows of the database; raise `NotFound` for an invalid id."""
        file = self.events_file(run_id)
        return EventRows(self.database, run_id) if self.database else file

    def events_file(self, run_id: str) -> Path:
        """Return the file of a run's event log, where no database is set; raises as `events`."""
        return self.run(run_id) / "events.jsonl"

    def require_objects(self) -> None:
        """Raise `PleinairError` where there is a storage of images and files that cannot be used."""
        if self.objects:
            Folder(self.objects).check()

    def _stored(self, place: str) -> Path | str:
        return f"{self.objects}/{place}" if self.objects else self.home / place


def places(home: str = "", database: str = "", objects: str = "", vectors: str = "") -> Paths:
    """Return the paths of the home: PLEINAIR_HOME, else the setting, else the platform's data folder.

    `database`, `objects` and `vectors` are the URLs of the settings of `cluster`.
    """
    text = os.environ.get("PLEINAIR_HOME") or home
    key = "PLEINAIR_HOME or paths.home"
    folder = checked_path(text, key).absolute() if text else user_data_path("pleinair")
    return Paths(folder, database, objects, vectors)
