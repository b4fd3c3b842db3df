"""Files of models, from a folder or the hub at one commit; what is whole in the cache is not asked for again.

Only the files that a caller names are fetched. Not covered: other hubs, and files of any revision but one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.tools.model_files.folders import identity, locate
from pleinair.tools.types import BadInput, PleinairError

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
INDEX = "model_index.json"
Faults = Callable[[Path], Iterable[str]]  # what is wrong with a folder


@dataclass(frozen=True, kw_only=True)
class Source:
    """Name a model: a local folder, or a hub id at one commit.

    Args:
        folder: a local folder, or `pocket/NAME` for one in this package.
        model: a hub id, `owner/name`.
        revision: the commit of the hub id, 40 hexadecimal digits.
        allow_branch: take a branch or tag as well; the commit it means now is looked up and recorded.
        local_files_only: never ask the hub; HF_HUB_OFFLINE=1 says the same for everything.
        key: what its settings' names begin with, for messages.
        table: where they are.
        revision_key: the name of the commit there.
    """

    folder: str = ""
    model: str = ""
    revision: str = ""
    allow_branch: bool = False
    local_files_only: bool = False
    key: str = ""
    table: str = "generator"
    revision_key: str = "revision"

    def __post_init__(self) -> None:
        """Refuse what names no model, or names one that may change."""
        if bool(self.folder) == bool(self.model):
            raise BadInput(
                f"{self._set('folder')} or {self._set('model')}: wanted one of them, a folder or a hub id"
            )
        if self.folder:
            return
        if not HUB_ID.fullmatch(self.model):
            raise BadInput(f"{self._set('model')} = {self.model!r}: wanted a hub id like owner/name")
        if not (COMMIT.fullmatch(self.revision) or (self.allow_branch and self.revision)):
            raise self._unpinned()

    @property
    def id(self) -> str:
        """Name the model and its exact weights."""
        if self.folder:
            return f"{self.folder}@{identity(locate(self.folder))}"
        return f"{self.model}@{self.commit}"

    @property
    def commit(self) -> str:
        """Give the commit; a branch is looked up, on the hub or in the cache."""
        return self.revision if COMMIT.fullmatch(self.revision) else self.fetch(("config.json", INDEX)).name

    def fetch(
        self, patterns: tuple[str, ...], ignore: tuple[str, ...] = (), faults: Faults | None = None
    ) -> Path:
        """Give the local folder with the files of these patterns, downloading what is not there.

        A commit never changes, so the hub is not asked where all files are in the cache. Where the cache has
        no list of the commit's files `faults` tells, and without it the files that are named in full.
        """
        if self.folder:
            return locate(self.folder)
        here = self._kept(patterns, ignore)
        if here and not any(faults(here) if faults else missing(here, patterns)):
            return here
        return self.download(patterns, ignore)

    def download(self, patterns: tuple[str, ...], ignore: tuple[str, ...] = ()) -> Path:
        """Give the local folder after asking the hub for what is not there."""
        return locate(self.folder) if self.folder else Path(self._snapshot(patterns, ignore))

    def names(self) -> list[str]:
        """List the model's files; asks the hub for those of a commit that the cache has no list of."""
        from huggingface_hub import HfApi, constants, get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        if not self.folder:
            online = not (self.local_files_only or constants.is_offline_mode())
            if COMMIT.fullmatch(self.revision) or not online:  # what a branch means may have changed
                with suppress(CachedRepoTreeNotFoundError):
                    return [one.path for one in get_cached_repo_tree(self.model, revision=self.revision)]
            if online:
                with suppress(Exception):  # not reached: what is here is all there is
                    return HfApi().list_repo_files(self.model, revision=self.revision)
        here = self.here()
        return [one.relative_to(here).as_posix() for one in here.rglob("*")] if here else []

    def lacks(self, patterns: tuple[str, ...], ignore: tuple[str, ...] = ()) -> dict[str, int]:
        """Give the files that `fetch` would download, with their sizes in bytes; asks the hub."""
        if self.folder:
            return {}
        listed = self._snapshot(patterns, ignore, dry_run=True)
        return {one.filename: one.file_size or 0 for one in listed if one.will_download}

    def here(self) -> Path | None:
        """Give the local folder without asking the hub, None where no file of the commit is here."""
        if self.folder:
            return locate(self.folder)
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        place = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.model, repo_type="model")
        ref = place / "refs" / self.revision
        folder = place / "snapshots" / (ref.read_text("utf-8").strip() if ref.is_file() else self.revision)
        return folder if folder.is_dir() else None

    def _kept(self, patterns: tuple[str, ...], ignore: tuple[str, ...]) -> Path | None:
        """Give the folder of a commit unless files are known to be missing, without asking the hub."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        if not COMMIT.fullmatch(self.revision):
            return None
        with suppress(LocalEntryNotFoundError):
            return Path(self._ask(patterns, ignore, local_files_only=True))
        return None

    def _ask(
        self,
        patterns: tuple[str, ...],
        ignore: tuple[str, ...],
        local_files_only: bool,
        dry_run: bool = False,
    ) -> Any:
        from huggingface_hub import snapshot_download

        return snapshot_download(
            self.model,
            revision=self.revision,
            local_files_only=local_files_only,
            allow_patterns=list(patterns),
            ignore_patterns=list(ignore),
            dry_run=dry_run,
        )

    def _snapshot(self, patterns: tuple[str, ...], ignore: tuple[str, ...], dry_run: bool = False) -> Any:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return self._ask(patterns, ignore, local_files_only=self.local_files_only, dry_run=dry_run)
        except LocalEntryNotFoundError as error:
            raise self._absent() from error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise self._unreachable(error) from error

    def _set(self, name: str) -> str:
        return f"{self.table}.{self.key}{name}"

    def _unpinned(self) -> BadInput:
        name = self._set(self.revision_key)
        branch = "; generator.allow_branch = true takes one all the same" * (self.table == "generator")
        return BadInput(
            f"{name} = {self.revision!r}: wanted a commit of {self.model}, 40 hexadecimal digits; a branch "
            f"or tag can change under you{branch}.",
            f"Set {name} to a commit from “Files and versions” on the model's page; or leave it empty, and "
            "`pleinair models pull PROFILE` takes the present commit and keeps to it.",
        )

    def _absent(self) -> PleinairError:
        return PleinairError(
            f"{self.model} at {self.revision} is not in the local cache and the hub was not reached.",
            "Check the connection, unset HF_HUB_OFFLINE and generator.local_files_only, or name a folder "
            "that holds the model.",
        )

    def _unreachable(self, error: Exception) -> PleinairError:
        return PleinairError(
            f"{self.model} at {self.revision} cannot be fetched: {first_line(error)}",
            "Check the id and the commit; for a gated model accept its terms on its page and log in with "
            "`hf auth login`.",
        )


def missing(folder: Path, patterns: Iterable[str]) -> list[str]:
    """List the files that are named in full and not in a folder."""
    return [name for name in patterns if "*" not in name and not (folder / name).is_file()]


def first_line(error: Exception) -> str:
    """Give the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
