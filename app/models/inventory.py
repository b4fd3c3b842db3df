"""The models that a profile needs: what they are, where they come from, and whether their files are complete.

A check reads configs and the headers of the weights, and with `checksums` every byte for which the hub's
cache has a checksum; nothing is loaded. Not covered: models behind a server, backends of third parties, and
whether a class of diffusers accepts a config.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.arguments import validated
from pleinair.tools.diffusion.controlnet import ControlNet, branch_files
from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.ip_adapter import IpAdapter, IpAdapterSettings
from pleinair.tools.diffusion.loading import read_index, require_class
from pleinair.tools.diffusion.settings import DiffusersSettings
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.model_files.hub import INDEX, ModelLocation, Source, missing_files
from pleinair.tools.model_files.integrity import find_checksum_faults, find_part_faults, find_weight_faults
from pleinair.tools.model_files.licenses import LICENSES
from pleinair.tools.model_files.open_clip import FILES as CLIP_FILES
from pleinair.tools.model_files.open_clip import LOCAL, WEIGHTS, hub_location, model_label
from pleinair.tools.model_files.variants import Files, pipeline_files
from pleinair.tools.types import BadInput

Kind = Literal["pipeline", "adapter", "controlnet", "open_clip", "elsewhere"]

BACKENDS: dict[str, type[DiffusersEngine]] = {
    backend.backend: backend for backend in (InContext, IpAdapter, ControlNet, TextOnly)
}
SECOND_MODELS: dict[str, Kind] = {"ip_adapter": "adapter", "controlnet": "controlnet"}  # beside the pipeline


@dataclass(frozen=True)
class ProfileModel:
    """One model of a profile: in a folder, on the hub, or elsewhere."""

    role: str
    kind: Kind
    settings: ModelLocation
    prefix: str = ""  # of its keys in the settings
    address: str = ""  # of the server, if it is elsewhere
    pin_name: str = ""  # its name among the pinned commits, if that is not the hub id

    def _setting(self, name: str) -> str:
        return str(getattr(self.settings, f"{self.prefix}{name}"))

    @property
    def model(self) -> str:
        """Return the hub id or the folder."""
        return self._setting("model") or self._setting("folder")

    @property
    def on_hub(self) -> bool:
        """Return whether it comes from the hub."""
        return self.kind != "elsewhere" and not self._setting("folder")

    @property
    def revision(self) -> str:
        """Return the commit, or the branch that stands for one."""
        return self._setting("revision") if self.on_hub else ""

    @property
    def license(self) -> str:
        """Return its license if it is listed here."""
        return LICENSES.get(self.model, "") if self.on_hub else ""

    def source(self) -> Source:
        """Return its files; raise `BadInput` if no commit is set."""
        return self.settings.source(self.prefix)

    def files(self, folder: Path, online: bool = False) -> Files:
        """Return the patterns of its files; a pipeline's index must be in the folder.

        For a variant the hub may be asked which parts have it, if `online`.
        """
        variant = self.settings.variant
        names = self.source().names(online) if variant else ()
        if self.kind == "pipeline":
            return pipeline_files(read_index(folder)[1], variant, names)
        if self.kind == "controlnet":
            return branch_files(variant, names)
        if self.kind == "adapter" and isinstance(self.settings, IpAdapterSettings):
            return self.settings.adapter_files, ()
        return CLIP_FILES, ()

    def at(self, commit: str) -> ProfileModel:
        """Return the same model at a commit."""
        settings = self.settings.model_copy(update={f"{self.prefix}revision": commit})
        return replace(self, settings=settings)


def profile_models(settings: Settings) -> list[ProfileModel]:
    """List the models of a profile; raise `BadInput` for arguments that their backends refuse."""
    encoders = [encoder_model(choice) for choice in (settings.encoder, settings.retrieval.second) if choice]
    return [*_generator_models(settings.generator), *encoders, _elsewhere("mllm", settings.mllm)]


def local_models(settings: Settings) -> list[ProfileModel]:
    """List those of `profile_models` that this machine needs: nodes of Ray Serve have the others."""
    served = settings.ray_serve
    roles = {"generator", *SECOND_MODELS.values()} if served.generator else set[str]()
    roles |= {"encoder"} if served.encoder else set()
    return [model for model in profile_models(settings) if model.role not in roles]


def _generator_models(choice: BackendChoice) -> Iterator[ProfileModel]:
    if choice.backend not in BACKENDS:
        yield _elsewhere("generator", choice)
        return
    settings = generator_settings(choice)
    yield ProfileModel("generator", "pipeline", settings)
    if kind := SECOND_MODELS.get(choice.backend):
        yield ProfileModel(kind, kind, settings, f"{kind}_")


def generator_settings(choice: BackendChoice) -> DiffusersSettings:
    """Return the settings of a generator in `BACKENDS`; raise `BadInput` for unusable ones."""
    model = BACKENDS[choice.backend].settings_model
    return validated(model, choice.arguments, "generator", f"generator {choice.backend!r}")


def encoder_model(choice: BackendChoice) -> ProfileModel:
    """Return an encoder; raise `BadInput` for a name of open_clip without weights on the hub."""
    if choice.backend != "open_clip":
        return _elsewhere("encoder", choice)
    table, name = choice.arguments, str(choice.arguments.get("model", ""))
    if name.startswith(LOCAL):
        return ProfileModel("encoder", "open_clip", ModelLocation(folder=name.removeprefix(LOCAL)))
    hub_id, commit = hub_location(table)
    location = ModelLocation(model=hub_id, revision=commit)
    return ProfileModel("encoder", "open_clip", location, pin_name=model_label(table))


def _elsewhere(role: str, choice: BackendChoice) -> ProfileModel:
    address = choice.arguments.get("base_url") or ""
    address = address if isinstance(address, str) else ", ".join(address)
    return ProfileModel(role, "elsewhere", ModelLocation(model=choice.label), address=address)


def is_absent(model: ProfileModel) -> bool:
    """Return whether a model with a commit or folder has no local file; False if it is elsewhere."""
    has_location = not model.on_hub or bool(model.revision)
    return model.kind != "elsewhere" and has_location and model.source().local_folder() is None


def find_missing_files(model: ProfileModel) -> tuple[list[str], int]:
    """Return what a hub model lacks on this machine, and its size in bytes as far as the cache lists it.

    Raises `BadInput` for files that its backend refuses.
    """
    source, folder = model.source(), model.source().local_folder()
    if folder is None:
        return ["not downloaded"], 0
    if model.kind == "pipeline" and not (folder / INDEX).is_file():
        return [f"{INDEX}: missing"], sum((source.missing_listed(("*",)) or {}).values())
    patterns, ignore = model.files(folder)
    listed = source.missing_listed(patterns, ignore)
    names = missing_files(folder, patterns) if listed is None else list(listed)
    faults = [f"{name}: missing" for name in names]
    if listed is None and not faults:
        faults = list(_content_faults(model, folder))
    return faults, sum((listed or {}).values())


def find_faults(model: ProfileModel, checksums: bool = False) -> Iterator[str]:
    """Yield everything that is wrong with a model's files."""
    if model.kind == "elsewhere":
        return
    try:
        folder = model.source().local_folder()
        if folder is None:
            yield "not downloaded"
            return
        yield from _content_faults(model, folder)
    except BadInput as error:
        yield str(error)
        return
    if checksums:
        yield from find_checksum_faults(folder)


def _content_faults(model: ProfileModel, folder: Path) -> Iterator[str]:
    """Yield the faults of the configs and weights that a model's backend will open."""
    settings = model.settings
    if model.kind == "pipeline" and isinstance(settings, DiffusersSettings):
        for part in require_class(folder, settings.pipeline, settings.family):
            yield from find_part_faults(folder / part, part, settings.variant)
    elif model.kind == "adapter" and isinstance(settings, IpAdapterSettings):
        weights = folder / settings.adapter_subfolder / settings.adapter_weight
        yield from find_weight_faults([weights], folder)
        yield from find_part_faults(folder / settings.encoder_folder, settings.encoder_folder)
    elif model.kind == "controlnet":
        yield from find_part_faults(folder, ".", settings.variant)
    else:
        yield from find_weight_faults([folder / WEIGHTS], folder)


def describe_state(model: ProfileModel) -> str:
    """Return in a few words whether a model is downloaded, with its size on the disk."""
    if model.kind == "elsewhere":
        return f"at {model.address}" if model.address else "nothing to download"
    if model.on_hub and not model.revision:
        return "not pinned: a pull pins the current commit"
    try:
        folder = model.source().local_folder()
    except BadInput:
        folder = None
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder else 0
    if not size:
        return "not downloaded"
    return f"{'incomplete' if any(find_faults(model)) else 'complete'}, {format_size(size)}"


def format_size(size: int) -> str:
    """Return a number of bytes as text with a decimal unit."""
    for unit, limit in (("bytes", 1000), ("kB", 10**6), ("MB", 10**9)):
        if size < limit:
            return f"{size * 1000 / limit:.0f} {unit}"
    return f"{size / 10**9:,.1f} GB"
