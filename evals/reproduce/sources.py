"""Data sets in the user's folders, and one message about everything that is missing: data, weights, keys."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pleinair.app.models.inventory import ProfileModel, find_missing_files, profile_models
from pleinair.app.models.ready import find_missing_keys
from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.data_sets.data_set import DataSet
from pleinair.tools.data_sets.recognise import LAYOUTS, recognise_all
from pleinair.tools.registry import Kind
from pleinair.tools.types import BadInput

ENGINES: tuple[Kind, ...] = ("generator", "encoder", "mllm")
_KINDS: Mapping[str, Kind] = {
    "encoder": "encoder",
    "mllm": "mllm",
}  # by a model's role; others: the generator


def find_data_sets(
    folders: Sequence[Path], wanted: Sequence[str]
) -> tuple[dict[str, DataSet], dict[str, BadInput]]:
    """Return the wanted data sets in folders, or right in their folders, and what is wrong with others.

    Raises:
        BadInput: there is no such folder, or no data set in it.
    """
    data_sets, faults = dict[str, DataSet](), dict[str, BadInput]()
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"--data {str(folder)!r}: no such folder.")
        complete, damaged = recognise_all(folder, [name for name in wanted if name not in data_sets])
        data_sets |= complete
        faults |= damaged
    return data_sets, faults


def missing_data(
    wanted: Iterable[str], present: Mapping[str, DataSet], faults: Mapping[str, BadInput]
) -> list[str]:
    """Return for each wanted data set that is not there what is wrong with it, or what to fetch."""
    layouts = [LAYOUTS[name] for name in dict.fromkeys(wanted) if name not in present]
    return [
        f"data set {layout.name}: {faults[layout.name]}"
        if layout.name in faults
        else f"data set {layout.name}: {layout.title}, {layout.size}, from {layout.source}; "
        f"license: {layout.license}"
        for layout in layouts
    ]


def missing_models(
    rows: Iterable[Settings], profile: Settings, kinds: Collection[Kind] = ENGINES
) -> Iterator[str]:
    """Yield what the engines of some kinds lack on this machine: keys, and files of models.

    Args:
        rows: settings of each row.
        profile: the settings of all rows, whose models are fetched with the profile.
        kinds: of the engines that are used.

    Raises:
        BadInput: arguments that a backend refuses.
    """
    for fault in find_missing_keys(profile):
        if fault.field in kinds:
            yield str(fault)
    own = {model.model for model in profile_models(profile)}
    for settings in rows:
        second = settings.encoder if settings.encoder != profile.encoder else settings.retrieval.second
        for model in profile_models(settings):
            if _KINDS.get(model.role, "generator") in kinds and _is_missing(model):
                yield _to_fetch(model, settings.profile, None if model.model in own else second)


def _is_missing(model: ProfileModel) -> bool:
    """Return whether a model of the hub has no commit or lacks files; raise `BadInput` for a wrong folder."""
    if model.kind == "elsewhere":
        return False
    if model.on_hub:
        return not model.revision or bool(find_missing_files(model)[0])
    return model.source().local_folder() is None


def _to_fetch(model: ProfileModel, profile: str, second: BackendChoice | None) -> str:
    """Return how to fetch a model; a second encoder is a setting of its own."""
    command, role = f"pleinair models pull {profile}", model.role
    license = model.license or "shown there, too"
    if second is None:
        return f"{role} {model.model}: `{command}` shows its size, fetches and checks it; license: {license}"
    table = ", ".join(f"{key}={json.dumps(value)}" for key, value in second.model_dump().items())
    setting = f"--set 'retrieval.second={{{table}}}'"
    return (
        f"second {role} {model.model}: `{command} {setting}` shows its size and fetches it, and this command "
        f"needs the same --set; license: {license}"
    )


def require_all(data_sets: Sequence[str], models: Sequence[str], scorers: Sequence[str]) -> None:
    """Raise `BadInput` with everything that is missing at once."""
    missing = [*data_sets, *models, *scorers]
    if not missing:
        return
    leave_out = [
        *["--data-sets (data sets)"] * bool(data_sets),
        *["--scorer (scores, or none)"] * bool(scorers),
        "--only (tables and rows)",
    ]
    lines = "".join(f"\n  {line}" for line in missing)
    raise BadInput(
        f"Nothing was generated, since this is missing:{lines}\n"
        f"Provide it, or leave it out by {', '.join(leave_out)}."
    )
