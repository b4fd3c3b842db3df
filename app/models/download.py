"""Download of models from the hub: a plan with sizes and licenses first, then the files that are opened."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.app.models.inventory import ProfileModel, format_size
from pleinair.app.texts import counted
from pleinair.tools.model_files.hub import INDEX, first_line
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.types import PleinairError

RESERVE = 2 * 2**30  # bytes that a download leaves free, for images and the run table


@dataclass(frozen=True)
class DownloadPlan:
    """Files of a model that are not local."""

    model: ProfileModel
    patterns: tuple[str, ...]
    ignore: tuple[str, ...]
    files: dict[str, int]  # name → bytes
    license: str

    @property
    def size(self) -> int:
        """Return the bytes to download."""
        return sum(self.files.values())

    @property
    def text(self) -> str:
        """Return the plan as one line."""
        model = self.model
        files = f"{counted(len(self.files), 'file')}, {format_size(self.size)}" if self.files else "complete"
        return f"{model.role}: {model.model} at {model.revision}, license {self.license}: {files}"

    def download(self) -> Path:
        """Download the files, with the hub's own progress bars, and return the folder."""
        return self.model.source().download(self.patterns, self.ignore)


def at_commit(model: ProfileModel) -> ProfileModel:
    """Return a model at its commit; if the settings name none, at the hub's current one."""
    if model.revision:
        return model
    _require_online(model)
    return model.at(str(_hub_page(model.model).sha))


def plan_download(model: ProfileModel) -> DownloadPlan:
    """Ask the hub which files of a model are missing; a pipeline's index, a few kilobytes, is fetched.

    Raises:
        BadInput: no commit is set, or the pipeline is of another class.
        PleinairError: offline, or the hub does not have it.
    """
    source = model.source()
    _require_online(model)
    index = source.download((INDEX,)) if model.kind == "pipeline" else Path()
    patterns, ignore = model.files(index, online=True)
    data = _hub_page(model.model, model.revision).card_data
    declared = (data.get("license_name") or data.get("license")) if data else None
    license = str(declared or model.license or "not declared")
    return DownloadPlan(model, patterns, ignore, source.missing_sizes(patterns, ignore), license)


def require_disk_space(plans: Sequence[DownloadPlan]) -> None:
    """Raise `DiskFull` for downloads that the disk of the cache has no space for."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    folder = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    size, free = sum(plan.size for plan in plans), shutil.disk_usage(folder).free
    if size and size + RESERVE > free:
        raise DiskFull(
            f"The download is {format_size(size)}, and {folder} has {format_size(free)} free, of which "
            f"{format_size(RESERVE)} are reserved.",
            "Free some, or set HF_HUB_CACHE to another disk.",
        )


def _require_online(model: ProfileModel) -> None:
    from huggingface_hub import constants

    if model.settings.local_files_only or constants.is_offline_mode():
        raise PleinairError("HF_HUB_OFFLINE or local_files_only is set: nothing is downloaded.", "Unset it.")


def _hub_page(model: str, revision: str | None = None) -> Any:
    """Return the hub's data of a model, at the current commit unless another is given."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(model, revision=revision)
    except Exception as error:  # a broken connection is an error of the client's transport
        raise PleinairError(f"{model}: {first_line(error)}") from error
