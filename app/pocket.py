"""Parts of a run that are the miniature world's: its generator, and the language of its chat model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleinair.tools.pocket import worlds
from pleinair.tools.pocket.threads import PREFIX

if TYPE_CHECKING:
    from pleinair.app.settings import Settings
    from pleinair.tools.pocket.language import Language
    from pleinair.tools.pocket.worlds import World


def is_pocket(settings: Settings) -> bool:
    """Return whether the generator is the miniature one of this package."""
    return str(settings.generator.arguments.get("folder", "")).startswith(PREFIX)


def world_of(settings: Settings) -> World:
    """Return the world of the pocket generator, or of the pocket chat model beside another generator."""
    if is_pocket(settings):
        return worlds.world_of(str(settings.generator.arguments["folder"]))
    world: World = settings.mllm.arguments.get("world", worlds.DEFAULT)
    return world


def language_of(settings: Settings) -> Language:
    """Return the language of the settings' world."""
    return worlds.language_of(world_of(settings))
