"""Parts of a run that are the miniature worlds': the generator, and the language of the chat model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pleinair.tools.pocket import worlds
from pleinair.tools.pocket.threads import PREFIX

if TYPE_CHECKING:
    from pleinair.app.settings import Settings
    from pleinair.tools.pocket.language import Language
    from pleinair.tools.pocket.worlds import World

CHAT = "pocket"  # the backend of the pocket chat model
_LOCAL = "local-dir:"


def is_pocket(settings: Settings) -> bool:
    """Return whether the generator is a miniature one of this package."""
    return str(settings.generator.arguments.get("folder", "")).startswith(PREFIX)


def world_of(settings: Settings) -> World:
    """Return the world of the settings' models: of the generator, else the encoder, else the chat model."""
    return _world_of(settings.generator.arguments, settings.encoder.arguments, settings.mllm.arguments)


def language_of(settings: Settings) -> Language:
    """Return the language of the settings' world."""
    return worlds.language_of(world_of(settings))


def with_world(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a tree of settings in which a pocket chat model without a world has that of the other models.

    Runs of before there were two worlds do not name theirs.
    """
    tables = (tree.get(table) for table in ("generator", "encoder", "mllm"))
    generator, encoder, mllm = (table if isinstance(table, Mapping) else {} for table in tables)
    if mllm.get("backend") != CHAT or "world" in mllm:
        return tree
    return {**tree, "mllm": {**mllm, "world": _world_of(generator, encoder, mllm)}}


def _world_of(generator: Mapping[str, Any], encoder: Mapping[str, Any], mllm: Mapping[str, Any]) -> World:
    models = (str(generator.get("folder", "")), str(encoder.get("model", "")).removeprefix(_LOCAL))
    named = (worlds.world_of(model) for model in models if model.startswith(PREFIX))
    world: World = next(named, mllm.get("world", worlds.DEFAULT))
    return world
