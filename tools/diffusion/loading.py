"""Open a model from a folder or the hub: a pinned commit, safetensors only, and no code from outside.

A hub model is first fetched as a snapshot of one commit, data files only, and then opened as a folder, so
that what was checked is what is loaded. Not covered: single-file checkpoints and quantised weights.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.tools.diffusion.placement import is_out_of_memory
from pleinair.tools.intact import of_part
from pleinair.tools.types import BadInput, PleinairError
from pleinair.tools.weights import identity, locate

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
INDEX = "model_index.json"
DATA = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")  # what is fetched of a part
DOUBLES = ("*.fp16.*", "*.fp16-*", "*.bf16.*", "*.non_ema.*")  # the same weights once more
MEND = "`pleinair models check` looks at its files; `pleinair models pull` fetches one of the hub again."
LIBRARIES = {"diffusers", "transformers", "stable_diffusion"}  # the last is diffusers' safety checker


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
    """

    folder: str = ""
    model: str = ""
    revision: str = ""
    allow_branch: bool = False
    local_files_only: bool = False
    key: str = ""

    def __post_init__(self) -> None:
        """Refuse what names no model, or names one that may change."""
        if bool(self.folder) == bool(self.model):
            raise BadInput(f"Set {self._set('folder')} or {self._set('model')}, a local folder or a hub id.")
        if self.folder:
            return
        if not HUB_ID.fullmatch(self.model):
            raise BadInput(f"{self._set('model')} = {self.model!r}: wanted a hub id like owner/name")
        if not (COMMIT.fullmatch(self.revision) or (self.allow_branch and self.revision)):
            name = self._set("revision")
            raise BadInput(
                f"{name} = {self.revision!r}: set {name} to a commit of {self.model}, 40 hexadecimal digits, "
                "from “Files and versions” on its page. A branch or tag can change under you; "
                "generator.allow_branch = true takes one all the same."
            )

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

    def fetch(self, patterns: tuple[str, ...], ignore: tuple[str, ...] = ()) -> Path:
        """Give the local folder with the files of these patterns, downloading what is not there."""
        return locate(self.folder) if self.folder else Path(self._snapshot(patterns, ignore))

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

    def _snapshot(self, patterns: tuple[str, ...], ignore: tuple[str, ...], dry_run: bool = False) -> Any:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return snapshot_download(
                self.model,
                revision=self.revision,
                local_files_only=self.local_files_only,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignore),
                dry_run=dry_run,
            )
        except LocalEntryNotFoundError as error:
            raise PleinairError(self._absent()) from error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise PleinairError(self._unreachable(error)) from error

    def _set(self, name: str) -> str:
        return f"generator.{self.key}{name}"

    def _absent(self) -> str:
        return (
            f"{self.model} at {self.revision} is not in the local cache and the hub was not reached. Check "
            "the connection, unset HF_HUB_OFFLINE and generator.local_files_only, or set "
            f"{self._set('folder')} to a folder that holds the model."
        )

    def _unreachable(self, error: Exception) -> str:
        return (
            f"{self.model} at {self.revision} cannot be fetched: {first_line(error)} Check the id and the "
            "commit; for a gated model accept its terms on its page and log in with `hf auth login`."
        )


def check_class(source: Source, pipeline: str, opens: Any) -> None:
    """Refuse a local folder of another class; `opens(pipeline, found)` tells which ones are well."""
    if source.folder:
        require_class(locate(source.folder), pipeline, opens)


def require_class(folder: Path, pipeline: str, opens: Any) -> dict[str, str]:
    """Read the parts of a pipeline folder by name, or raise `BadInput` where it is not of this class."""
    found, parts = read_index(folder)
    if not opens(pipeline, found):
        raise BadInput(
            f"{str(folder)!r} is a {found}, not a {pipeline}: set generator.pipeline to its class."
        )
    return parts


def read_index(folder: Path) -> tuple[str, dict[str, str]]:
    """Read a pipeline's class, and its parts as name → library; raise `BadInput` for code from outside."""
    path = folder / INDEX
    if not path.is_file():
        raise BadInput(f"No diffusers pipeline in {str(folder)!r}: it has no {INDEX}.")
    try:
        index = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(f"{str(path)!r} is no JSON: {error}") from error
    name = index.get("_class_name")
    rows = {key: value for key, value in index.items() if isinstance(value, list) and not key.startswith("_")}
    parts = {key: value[0] for key, value in rows.items() if value and value[0] is not None}
    foreign = [f"{key} from {library!r}" for key, library in parts.items() if library not in LIBRARIES]
    if not isinstance(name, str) or foreign or any(folder.rglob("*.py")):
        what = "; ".join(foreign) or "a class or a file of its own"
        raise BadInput(f"{str(folder)!r} brings its own code ({what}): no code from a model is run here.")
    return name, parts


def fetch_pipeline(source: Source, pipeline: str, opens: Any, variant: str = "") -> Path:
    """Give a folder with a pipeline's index and the data files of its parts, checked before the weights.

    Raises `BadInput` for another class, and where files are missing or cut off.
    """
    parts = require_class(source.fetch((INDEX,)), pipeline, opens)
    folder = source.fetch(*pipeline_files(parts, variant))
    if faults := [fault for part in parts for fault in of_part(folder / part, part)]:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BadInput(f"{str(folder)!r} cannot be loaded: {faults[0]}{more}. {MEND}")
    return folder


def pipeline_files(parts: Iterable[str], variant: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the patterns of what is fetched of a pipeline with these parts, and of what is left out."""
    wanted = tuple(f"{part}/{pattern}" for part in parts for pattern in DATA)
    return (INDEX, *wanted), () if variant else DOUBLES


def open_pipeline(folder: Path, pipeline: str, dtype: Any, variant: str = "", **parts: Any) -> Any:
    """Load a pipeline on the CPU from local safetensors, without its progress bar.

    `parts` are ready-made ones that the folder lacks. Raises `BadInput` where a file is missing or no
    safetensors.
    """
    import diffusers

    kind = getattr(diffusers, pipeline)
    given = {**parts, **({"variant": variant} if variant else {})}
    try:
        opened = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **given
        )
        for name, part in opened.components.items():
            if hasattr(part, "parameters") and any(weight.is_meta for weight in part.parameters()):
                raise BadInput(f"{name} has fewer weights than its config wants.")
    except Exception as error:  # each library has its own for a file that does not fit
        raise unloadable(folder, error) from error
    opened.set_progress_bar_config(disable=True)
    return opened


def open_part(folder: Path, kind: str, dtype: Any) -> Any:
    """Load one model of a class of diffusers from a folder of its own, as `open_pipeline` does."""
    import diffusers

    try:
        return getattr(diffusers, kind).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except Exception as error:  # each library has its own for a file that does not fit
        raise unloadable(folder, error) from error


def unloadable(folder: Path, error: Exception) -> Exception:
    """Turn what a library says of a model that it cannot load into ours; a lack of memory stays itself."""
    if is_out_of_memory(error):
        return error
    return BadInput(f"{str(folder)!r} cannot be loaded: {first_line(error)} {MEND}")


def plain_form(pipeline: Any, plain: str) -> Any:
    """Make a pipeline of class `plain` from the parts of another one; nothing is loaded twice."""
    import diffusers

    kind = getattr(diffusers, plain)
    wanted = inspect.signature(kind.__init__).parameters
    parts = {name: part for name, part in pipeline.components.items() if name in wanted}
    flags = {name: pipeline.config[name] for name in wanted if name not in parts and name in pipeline.config}
    made = kind(**parts, **flags)
    made.set_progress_bar_config(disable=True)
    return made


def first_line(error: Exception) -> str:
    """Give the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
