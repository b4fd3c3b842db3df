"""The two miniature worlds by name: the language, the library and the models of each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pleinair.tools.pocket.language import Language

World = Literal["catalogue", "invented"]
DEFAULT: World = "invented"


def language_of(world: World) -> Language:
    """Return the language of a world."""
    if world == "catalogue":
        from pleinair.tools.pocket.catalogue.chat_language import CatalogueLanguage

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
