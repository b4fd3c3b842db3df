"""Model files from a local folder or the hub at one commit, which are read from the hub's cache.

Only `download`, `missing_sizes` and `names(online=True)` contact the hub, for the files that a caller lists.
Not covered: other hubs, and several revisions at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from pleinair.tools.model_files.folders import identity, locate
from pleinair.tools.types import BadInput, PleinairError, Value

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
INDEX = "model_index.json"
FindFaults = Callable[[Path], Iterable[str]]  # lists what is wrong with a folder


class NotDownloaded(BadInput):
    """A model of the hub whose files are not all on this machine."""


class ModelLocation(Value):
    """Settings that locate a model: a local folder, or a hub id at one commit."""

    model_config = ConfigDict(strict=True)

    folder: str = Field(default="", description="local folder, or `pocket/NAME` for one in this package")
    model: str = Field(default="", description="hub id instead, `owner/name`, with its `revision`")
    revision: str = Field(default="", description="commit of the hub id, 40 hexadecimal digits")
    allow_branch: bool = Field(default=False, description="accept a branch or tag and resolve it")
    local_files_only: bool = Field(default=False, description="refuse to download, also by `models pull`")
    variant: str = Field(default="", description='second set of weights in the folder, such as "fp16"')

    def source(self, prefix: str = "") -> Source:
        """Return the model whose keys begin with `prefix`; raise `BadInput` if none, or no commit, is set."""
        return Source(
            **{key: getattr(self, prefix + key) for key in ("folder", "model", "revision")},
            allow_branch=self.allow_branch,
            local_files_only=self.local_files_only,
            prefix=prefix,
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """Local folder, or hub id at one commit, whose files are read or downloaded; see `ModelLocation`."""

    folder: str = ""
    model: str = ""
    revision: str = ""
    allow_branch: bool = False
    local_files_only: bool = False
    prefix: str = ""  # of the settings' names, for messages
    table: str = "generator"  # of the settings, likewise
    revision_key: str = "revision"  # name of the commit's setting, likewise

    def __post_init__(self) -> None:
        """Raise `BadInput` for none or two locations, and for a revision that may change."""
        if bool(self.folder) == bool(self.model):
            raise BadInput(
                f"{self._key('folder')} or {self._key('model')}: wanted one of them, a folder or a hub id"
            )
        if self.folder:
            return
        if not HUB_ID.fullmatch(self.model):
            raise BadInput(f"{self._key('model')} = {self.model!r}: wanted a hub id like owner/name")
        if not (COMMIT.fullmatch(self.revision) or (self.allow_branch and self.revision)):
            key = self._key(self.revision_key)
            branch = "; generator.allow_branch = true accepts one" * (self.table == "generator")
            raise BadInput(
                f"{key} = {self.revision!r}: wanted a commit of {self.model}, 40 hexadecimal digits; a "
                f"branch or tag can change at any time{branch}.",
                f"Set {key} to a commit from “Files and versions” on the model's page; or leave it empty and "
                "run `pleinair models pull PROFILE`, which pins the current one.",
            )

    @property
    def id(self) -> str:
        """Return the model's name with its exact weights."""
        if self.folder:
            return f"{self.folder}@{identity(locate(self.folder))}"
        return f"{self.model}@{self.commit}"

    @property
    def commit(self) -> str:
        """Return the commit; that of a branch as of its last download."""
        if COMMIT.fullmatch(self.revision):
            return self.revision
        if folder := self.local_folder():
            return folder.name
        raise self._not_downloaded("not downloaded")

    def require_files(
        self, patterns: tuple[str, ...], ignore: tuple[str, ...] = (), find_faults: FindFaults | None = None
    ) -> Path:
        """Return the local folder with the files of these patterns; the hub is never contacted.

        Raises `NotDownloaded` for a hub id of which some are missing. If the cache has no list of its files,
        `find_faults` decides, and without it the patterns that are file names.
        """
        if self.folder:
            return locate(self.folder)
        folder = self.local_folder()
        if folder is None:
            raise self._not_downloaded("not downloaded")
        faults: Iterable[str] | None = self.missing_listed(patterns, ignore)
        if faults is None:
            faults = find_faults(folder) if find_faults else missing_files(folder, patterns)
        if fault := next(iter(faults), ""):
            raise self._not_downloaded(f"not complete, {fault}")
        return folder

    def missing_listed(
        self, patterns: tuple[str, ...], ignore: tuple[str, ...] = ()
    ) -> dict[str, int] | None:
        """Return the files that are not local, with their bytes; None if the cache has no list of all."""
        sizes, folder = self._cached_list(), self.local_folder()
        if sizes is None:
            return None
        return {
            name: size
            for name, size in sizes.items()
            if any(fnmatch(name, pattern) for pattern in patterns)
            and not any(fnmatch(name, pattern) for pattern in ignore)
            and not (folder and (folder / name).is_file())
        }

    def download(self, patterns: tuple[str, ...], ignore: tuple[str, ...] = ()) -> Path:
        """Return the local folder after asking the hub for missing files."""
        return locate(self.folder) if self.folder else Path(self._snapshot(patterns, ignore))

    def names(self, online: bool = False) -> list[str]:
        """List the model's files; `online` asks the hub for a commit of which the cache has no list."""
        from huggingface_hub import HfApi

        if not self.folder:
            is_fixed = COMMIT.fullmatch(self.revision) or not online  # what a branch means may have changed
            if is_fixed and (listed := self._cached_list()) is not None:
                return list(listed)
            if online:
                with suppress(Exception):  # unreachable: only the local files remain
                    return HfApi().list_repo_files(self.model, revision=self.revision)
        folder = self.local_folder()
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*")] if folder else []

    def missing_sizes(self, patterns: tuple[str, ...], ignore: tuple[str, ...] = ()) -> dict[str, int]:
        """Return the files that `download` would fetch, with their sizes in bytes; contacts the hub."""
        if self.folder:
            return {}
        files = self._snapshot(patterns, ignore, dry_run=True)
        return {file.filename: file.file_size or 0 for file in files if file.will_download}

    def local_folder(self) -> Path | None:
        """Return the local folder without contacting the hub; None if no file of the commit is local."""
        if self.folder:
            return locate(self.folder)
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.model, repo_type="model")
        ref = repository / "refs" / self.revision
        commit = ref.read_text("utf-8").strip() if ref.is_file() else self.revision
        folder = repository / "snapshots" / commit
        return folder if folder.is_dir() else None

    def _cached_list(self) -> dict[str, int] | None:
        """Return all files of the model with their bytes; None if the cache has no list of them."""
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            tree = get_cached_repo_tree(self.model, revision=self.revision)
        except CachedRepoTreeNotFoundError:
            return None
        return {entry.path: int(getattr(entry, "size", 0)) for entry in tree}

    def _not_downloaded(self, state: str) -> NotDownloaded:
        return NotDownloaded(
            f"{self.model} at {self.revision} is {state}; only `pleinair models pull` downloads",
            "Run `pleinair models pull PROFILE` with the profile that names it, or set a folder that has it.",
        )

    def _snapshot(self, patterns: tuple[str, ...], ignore: tuple[str, ...], dry_run: bool = False) -> Any:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        name = f"{self.model} at {self.revision}"
        try:
            return snapshot_download(
                self.model,
                revision=self.revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignore),
                local_files_only=self.local_files_only,
                dry_run=dry_run,
            )
        except LocalEntryNotFoundError as error:
            raise PleinairError(
                f"{name} is not in the local cache and the hub was not reached.",
                "Check the connection, unset HF_HUB_OFFLINE and generator.local_files_only, or set a folder "
                "that contains the model.",
            ) from error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise PleinairError(
                f"{name} cannot be fetched: {first_line(error)}",
                "Check the id and the commit; for a gated model accept its terms on its page and log in with "
                "`hf auth login`.",
            ) from error

    def _key(self, name: str) -> str:
        return f"{self.table}.{self.prefix}{name}"


def missing_files(folder: Path, patterns: Iterable[str]) -> list[str]:
    """List the patterns that are file names, without a wildcard, and not in a folder."""
    return [name for name in patterns if "*" not in name and not (folder / name).is_file()]


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
