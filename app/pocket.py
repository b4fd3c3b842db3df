"""Parts of a run that are the miniature world's: its generator, and the language of its chat model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleinair.tools.pocket.threads import PREFIX

if TYPE_CHECKING:
    from pleinair.app.settings import Settings
    from pleinair.tools.pocket.language import Language


def is_pocket(settings: Settings) -> bool:
    """Return whether the generator is the miniature one of this package."""
    return str(settings.generator.arguments.get("folder", "")).startswith(PREFIX)


def language_of(settings: Settings) -> Language:
    """Return the language of the pocket models."""
    from pleinair.tools.pocket.invented.language import InventedLanguage

    return InventedLanguage()
