"""Text alone: any family's plain form, for drafts, for models without references, and as a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import TEXT_ONLY
from pleinair.tools.types import GenerateRequest

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(eq=False)
class TextOnly(DiffusersEngine):
    """Generate from the prompt; the arguments are those of `DiffusersEngine`, and there are no slots."""

    engine: ClassVar[str] = "text_only"
    families = TEXT_ONLY

    def conditioning(
        self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]
    ) -> dict[str, Any]:
        """Give nothing: there are no references."""
        return {}
