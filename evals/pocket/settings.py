"""Settings by which the pocket profile runs in the catalogue world, until it does so by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pleinair.app.settings import Settings

CATALOGUE: Mapping[str, Any] = {
    "generator.folder": "pocket/catalogue/generator",
    "generator.height": 96,
    "generator.width": 96,
    "generator.reference_size": 48,
    "generator.slots": 3,
    "generator.max_sequence_length": 32,
    "encoder.model": "local-dir:pocket/catalogue/encoder",
    "mllm.world": "catalogue",
    "crops.least": 24,
    "crossmodal.adaptor": "pocket/catalogue/adaptor",
}


def pocket_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Load the pocket profile in the catalogue world, with some settings changed."""
    from pleinair.app.settings import load

    return load("pocket", {**CATALOGUE, **(overrides or {})})
