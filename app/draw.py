"""Deprecated name of `pleinair.app.api`."""

import warnings
from typing import Any

from pleinair.app import api
from pleinair.app.settings import Renamed


def __getattr__(name: str) -> Any:
    value = getattr(api, name)
    if not name.startswith("__"):
        warnings.warn("pleinair.app.draw is now called pleinair.app.api", Renamed, stacklevel=2)
    return value
