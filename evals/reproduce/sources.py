"""Data sets in the user's folders, and one message about everything that is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pleinair.app.models.inventory import ProfileModel, is_absent, profile_models
from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.data_sets.data_set import DataSet
from pleinair.tools.data_sets.recognise import LAYOUTS, recognise_all
from pleinair.tools.types import BadInput, PleinairError

T = TypeVar("T")


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
        whole, wrong = recognise_all(folder, [name for name in wanted if name not in data_sets])
        data_sets |= whole
        faults |= wrong
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


def missing_weights(settings: Settings, profile: Settings) -> list[str]:
    """Return what the models of a row lack on this machine; those of the profile are pulled with it."""
    try:
        models = profile_models(settings)
    except PleinairError as error:
        return [str(error)]
    second = settings.encoder if settings.encoder != profile.encoder else settings.retrieval.second
    own = {model.model for model in profile_models(profile)}
    return [
        _to_pull(model, settings.profile, None if model.model in own else second)
        for model in models
        if (model.on_hub and not model.revision) or is_absent(model)
    ]


def _to_pull(model: ProfileModel, profile: str, second: BackendChoice | None) -> str:
    """Return how to fetch a model; a second encoder is a setting of its own."""
    license = f"; license: {model.license}" if model.license else ""
    command = f"pleinair models pull {profile}"
    if second is None:
        return f"{model.role} {model.model}: `{command}` shows its size, fetches and checks it{license}"
    table = ", ".join(f"{key}={json.dumps(value)}" for key, value in second.model_dump().items())
    setting = f"--set 'retrieval.second={{{table}}}'"
    return f"second encoder {model.model}: `{command} {setting}`, and the same --set here{license}"


def attempts(makers: Mapping[str, Callable[[], T]]) -> tuple[dict[str, T], dict[str, PleinairError]]:
    """Return what could be made, and the errors of the others."""
    made: dict[str, T] = {}
    faults: dict[str, PleinairError] = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except PleinairError as error:
            faults[name] = error
    return made, faults


def require_all(missing: Sequence[str]) -> None:
    """Raise `BadInput` with everything that is missing at once."""
    if missing:
        lines = "".join(f"\n  {line}" for line in missing)
        raise BadInput(
            f"{len(missing)} things are missing, and nothing was generated:{lines}",
            "Fetch them, or leave them out: by --only (tables, rows), --data-sets, --scorer.",
        )
