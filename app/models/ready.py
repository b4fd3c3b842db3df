"""What a run needs and the machine lacks: a key, a package, or files of a model, which no run downloads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

from pleinair.app.models.inventory import ProfileModel, find_missing_files, format_size, local_models
from pleinair.app.runs.prices import is_hosted, server_addresses
from pleinair.app.settings import Settings
from pleinair.tools.http.addresses import OFFICIAL
from pleinair.tools.model_files.hub import NotDownloaded
from pleinair.tools.types import BadInput

_VARIABLE = "OPENAI_API_KEY"


def require_ready(settings: Settings) -> None:
    """Raise `BadInput` with the first thing that is missing and the command that helps; contacts nobody."""
    for fault in find_missing(settings):
        raise fault


def find_missing(settings: Settings) -> Iterator[BadInput]:
    """Yield an error for each key, package and model that is missing."""
    yield from find_missing_keys(settings)
    if settings.tracing.otlp and not (find_spec("opentelemetry") and find_spec("opentelemetry.exporter")):
        yield BadInput(
            f"tracing.otlp = {settings.tracing.otlp!r}: OpenTelemetry is not installed",
            "Run `pip install 'pleinair[otel]'`, or set tracing.otlp=false.",
        )
    for model in local_models(settings):
        if model.on_hub and model.revision:
            yield from _not_downloaded(model, settings.profile)


def find_missing_keys(settings: Settings) -> Iterator[BadInput]:
    """Yield an error for each server whose key is not set; its `field` is "mllm" or "generator"."""
    for table, choice in (("mllm", settings.mllm), ("generator", settings.generator)):
        variable = str(choice.arguments.get("key_variable") or _VARIABLE)
        asks_openai = is_hosted(choice) and OFFICIAL in server_addresses(choice)
        if asks_openai and not os.environ.get(variable):
            remedy = f"Set the environment variable {variable}."
            yield BadInput(f"{table}: {OFFICIAL} needs a key", remedy, field=table)


def _not_downloaded(model: ProfileModel, profile: str) -> Iterator[BadInput]:
    """Yield an error for a model of the hub that is not on this machine, or only in part."""
    try:
        faults, size = find_missing_files(model)
    except BadInput as error:
        yield error
        return
    if faults:
        facts = f"license: {model.license or 'see its page'}" + f", {format_size(size)}" * bool(size)
        yield NotDownloaded(
            f"{model.role}: {model.model} is not complete on this machine ({faults[0]}), and a run downloads "
            f"nothing; {facts}",
            f"Run `pleinair models pull {profile}`, which shows the size and asks first.",
        )
