"""Data sets in the user's folders, and one message about everything that is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pleinair.app.models.inventory import ProfileModel, is_absent, profile_models
from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.data_sets.data_set import DataSet
from pleinair.tools.data_sets.recognise import LAYOUTS, recognise
from pleinair.tools.types import BadInput, PleinairError

T = TypeVar("T")


def find_data_sets(folders: Sequence[Path]) -> dict[str, DataSet]:
    """Return the data sets in folders, or in the folders right in them, by the names of their layouts.

    Raises:
        BadInput: there is no such folder, no data set in it, or one whose lists are damaged.
    """
    data_sets: dict[str, DataSet] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"--data {str(folder)!r}: no such folder.")
        inner = [*_inside(folder)]
        for data_set in inner or [recognise(folder)]:
            data_sets.setdefault(data_set.layout.name, data_set)
    return data_sets


def _inside(folder: Path) -> Iterator[DataSet]:
    """Yield the data sets in the folders right in a folder; one under its layout's name must be whole."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if inner.name.lower() in LAYOUTS:
            yield recognise(inner, inner.name.lower())
        else:
            with suppress(BadInput):
                yield recognise(inner)


def missing_data(wanted: Iterable[str], present: Mapping[str, DataSet]) -> list[str]:
    """Return for each data set that is not there what to fetch, its size and its license."""
    layouts = [LAYOUTS[name] for name in dict.fromkeys(wanted) if name not in present]
    return [
        f"data set {layout.name}: {layout.title}, {layout.size}, from {layout.source}; "
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
