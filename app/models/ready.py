"""What a run needs and the machine lacks: a key, or the files of a model, which no run downloads."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pleinair.app.models.inventory import is_absent, profile_models
from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.http.openai_api import OFFICIAL
from pleinair.tools.types import BadInput

_SERVERS = ("openai", "openai_images")  # backends that call OpenAI itself unless an address is set
_VARIABLE = "OPENAI_API_KEY"


def require_ready(settings: Settings) -> None:
    """Raise `BadInput` with the first thing that is missing and the command that helps; contacts nobody."""
    for fault in find_missing(settings):
        raise fault


def find_missing(settings: Settings) -> Iterator[BadInput]:
    """Yield an error for each key and model that is missing."""
    for table, choice in (("mllm", settings.mllm), ("generator", settings.generator)):
        variable = str(choice.arguments.get("key_variable") or _VARIABLE)
        if _needs_key(choice) and not os.environ.get(variable):
            yield BadInput(f"{table}: {OFFICIAL} needs a key", f"Set the environment variable {variable}.")
    for model in profile_models(settings):
        if model.on_hub and model.revision and is_absent(model):
            license = model.license or "see its page"
            yield BadInput(
                f"{model.role}: {model.model} is not on this machine, and a run downloads nothing; license: "
                f"{license}",
                f"Run `pleinair models pull {settings.profile}`, which shows its size and asks first.",
            )


def _needs_key(choice: BackendChoice) -> bool:
    default = os.environ.get("OPENAI_BASE_URL", "") if choice.backend == "openai" else ""
    url = str(choice.arguments.get("base_url") or default or OFFICIAL)
    return choice.backend in _SERVERS and url.rstrip("/") == OFFICIAL
