"""Locations of runs and caches on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from pleinair.tools.storage.files import checked_path
from pleinair.tools.types import NotFound

_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Paths:
    """Layout of the home folder; no folder is created until it is used."""

    home: Path

    @property
    def table(self) -> Path:
        """Return the path of the run table."""
        return self.home / "runs.sqlite"

    @property
    def input_images(self) -> Path:
        """Return the folder of input images."""
        return self.home / "given"

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
        """Return a run's own folder; raise `NotFound` for an invalid id."""
        if not _RUN_ID.fullmatch(run_id):
            raise NotFound(f"run {run_id!r}: not a run id", "`pleinair runs list` shows them.")
        return self.home / "runs" / run_id

    def events(self, run_id: str) -> Path:
        """Return the path of a run's event log."""
        return self.run(run_id) / "events.jsonl"


def places(home: str = "") -> Paths:
    """Return the paths of the home: PLEINAIR_HOME, else the setting, else the platform's data folder."""
    folder = os.environ.get("PLEINAIR_HOME") or home
    if not folder:
        return Paths(user_data_path("pleinair"))
    return Paths(checked_path(folder, "PLEINAIR_HOME or paths.home").absolute())
