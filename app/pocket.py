"""Parts of a run that are the miniature worlds': the generator, and the language of the chat model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleinair.tools.pocket import worlds
from pleinair.tools.pocket.threads import PREFIX

if TYPE_CHECKING:
    from pleinair.app.settings import Settings
    from pleinair.tools.pocket.language import Language
    from pleinair.tools.pocket.worlds import World


def is_pocket(settings: Settings) -> bool:
    """Return whether the generator is a miniature one of this package."""
    return str(settings.generator.arguments.get("folder", "")).startswith(PREFIX)


def world_of(settings: Settings) -> World:
    """Return the world of the settings' models: of the generator, else the encoder, else the chat model."""
    return worlds.of_models(settings.generator.arguments, settings.encoder.arguments, settings.mllm.arguments)


def language_of(settings: Settings) -> Language:
    """Return the language of the settings' world."""
    return worlds.language_of(world_of(settings))
