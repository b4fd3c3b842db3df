"""Text alone: for drafts, for models without references, and as a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import TEXT_ONLY
from pleinair.tools.diffusion.settings import DiffusersSettings
from pleinair.tools.types import GenerateRequest

if TYPE_CHECKING:
    from PIL.Image import Image


class TextOnlySettings(DiffusersSettings):
    """Settings of `TextOnly`: those of every diffusers backend."""

    families = TEXT_ONLY


class TextOnly(DiffusersEngine):
    """Generator from the prompt alone, without slots for references."""

    backend = "text_only"
    settings_model = TextOnlySettings

    def condition(self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]) -> dict[str, Any]:
        """Return no arguments: there are no references."""
        return {}
