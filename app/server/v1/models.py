"""Model names: the profiles, and the names that clients know, which are the default profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from pleinair.app.server.v1.errors import ERRORS, ApiFault
from pleinair.app.settings import DEFAULT, PACKAGED, chat_servers, profiles

ALIASES = (  # of the default profile
    "pleinair",
    "gpt-image-1",
    "gpt-image-1-mini",
    "gpt-image-1.5",
    "gpt-image-2",
    "chatgpt-image-latest",
    "dall-e-2",
    "dall-e-3",
)
FAMILY = "gpt-image-"  # all further names that begin so are aliases, too
MOST_SHOWN = 60  # characters of a name in a message
router = APIRouter(responses=ERRORS)


class Model(BaseModel):
    """A name that a request can have as `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int  # seconds since the epoch
    owned_by: Literal["pleinair"] = "pleinair"


class ModelList(BaseModel):
    """All names that are listed."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models")
def list_models() -> ModelList:
    """List the profiles, and the names that stand for the default one."""
    return ModelList(data=list(_models()))


@router.get("/v1/models/{name}")
def show_model(name: str) -> Model:
    """Show one name, also one that is not listed."""
    profile = profile_of(name)
    return Model(id=name, created=_created(profiles()[(profile or DEFAULT).partition("+")[0]]))


def profile_of(name: str | None) -> str | None:
    """Return the profile of a model's name, None for the default one; raises `ApiFault`.

    A path is no name: a file elsewhere could have any settings.
    """
    names = profiles()
    profile, plus, server = (name or "").partition("+")
    if name is None or (name not in names and (name in ALIASES or name.startswith(FAMILY))):
        return None
    if profile in names and (not plus or server in chat_servers()):
        return name
    raise ApiFault(
        f"model {name[:MOST_SHOWN]!r}: there is no such profile",
        "model_not_found",
        param="model",
        status=404,
        remedy=f"Accepted: pleinair, {', '.join(names)}.",
    )


def _models() -> Iterator[Model]:
    names = profiles()
    for alias in ALIASES:
        if alias not in names:
            yield Model(id=alias, created=_created(PACKAGED / f"{DEFAULT}.toml"))
    for name, path in names.items():
        yield Model(id=name, created=_created(path))


def _created(path: Path) -> int:
    return int(path.stat().st_mtime)
