"""From settings to a trained adaptor: what `pleinair train adaptor` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pleinair.app.settings import Settings
from pleinair.tools.types import BadInput


def train_adaptor(
    settings: Settings, out: Path, *, epochs: int, learning_rate: float, batch: int, seed: int
) -> Iterator[str]:
    """Train the dense adaptor on the chosen library and yield a line an epoch."""
    raise BadInput("the adaptor's training is being built")
    yield ""
