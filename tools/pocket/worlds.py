"""The two miniature worlds by name: the language, the library and the models of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pleinair.tools.pocket.language import Language
from pleinair.tools.pocket.threads import PREFIX

World = Literal["catalogue", "invented"]
DEFAULT: World = "catalogue"
CHAT = "pocket"  # the backend of the pocket chat model
_LOCAL = "local-dir:"


def language_of(world: World) -> Language:
    """Return the language of a world."""
    if world == "catalogue":
        from pleinair.tools.pocket.catalogue.language.chat import CatalogueLanguage

        return CatalogueLanguage()
    from pleinair.tools.pocket.invented.language import InventedLanguage

    return InventedLanguage()


def model_folder(world: World, model: str) -> str:
    """Return the folder of a world's model, such as "pocket/catalogue/encoder"."""
    return f"pocket/{model}" if world == "invented" else f"pocket/{world}/{model}"


def world_of(folder: str) -> World:
    """Return the world of a model's folder."""
    return "catalogue" if folder.startswith("pocket/catalogue/") else "invented"


def cached_library(world: World, cache: Path) -> Path:
    """Return the library of a world in a cache folder, written on first use."""
    if world == "catalogue":
        from pleinair.tools.pocket.catalogue import library as catalogue

        return catalogue.cached_library(cache)
    from pleinair.tools.pocket.invented import library as invented

    return invented.cached_library(cache)


def of_models(generator: Mapping[str, Any], encoder: Mapping[str, Any], mllm: Mapping[str, Any]) -> World:
    """Return the world of tables of settings: the generator's, else that of the chat model or the encoder."""
    folder, model = (str(table.get(key, "")) for table, key in ((generator, "folder"), (encoder, "model")))
    if folder.startswith(PREFIX):
        return world_of(folder)
    name = model.removeprefix(_LOCAL)
    world: World = mllm.get("world", world_of(name) if name.startswith(PREFIX) else DEFAULT)
    return world


def with_world(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a tree of settings in which a pocket chat model without a world has that of the other models.

    Runs of before there were two worlds do not name theirs.
    """
    tables = (tree.get(table) for table in ("generator", "encoder", "mllm"))
    generator, encoder, mllm = (table if isinstance(table, Mapping) else {} for table in tables)
    if mllm.get("backend") != CHAT or "world" in mllm:
        return tree
    return {**tree, "mllm": {**mllm, "world": of_models(generator, encoder, mllm)}}
