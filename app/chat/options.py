"""Settings of a thread's next messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pleinair.app.chat.branches import ThreadMessages
from pleinair.app.chat.thread import GRAPH, IMAGE
from pleinair.app.engines import check, declared_capabilities
from pleinair.app.runs.prices import require_prices
from pleinair.app.runs.request import check_budget, check_settings
from pleinair.app.settings import Settings, load
from pleinair.tools.types import Budget, ImageOptions


class ThreadOptions(ThreadMessages):
    """Changes of a thread's settings; each is made as a whole or refused."""

    def set_budget(self, changes: Mapping[str, Any]) -> Budget:
        """Change limits of the next requests and return all; raises `BadInput` for an unusable one."""
        overrides, settings = self._changed("budget.", changes)
        check_budget(settings.budget)
        require_prices(settings)
        self._set(overrides=overrides)
        return settings.budget

    def set_image_options(self, changes: Mapping[str, Any]) -> ImageOptions:
        """Change options of the next images and return all; raises as `set_budget`."""
        overrides, settings = self._changed(IMAGE, changes)
        check(settings)
        self._set(overrides=overrides)
        return settings.image

    def set_strength(self, strength: float | None) -> ImageOptions:
        """Set the strength of all references of the next images, 0 to 1; None: the generator's own.

        Generators have one strength for all references, not one for each. Raises `BadInput` for a generator
        without one.
        """
        return self.set_image_options({"reference_strength": strength})

    @property
    def has_strength(self) -> bool:
        """Whether the generator has a strength of its references."""
        settings = load(self.thread.profile, self.thread.overrides)
        return "reference_strength" in declared_capabilities(settings).accepts

    def set_approve(self, approve: str) -> None:
        """Ask before the first image with "references", also before the "draft", or never with ""."""
        overrides, settings = self._changed("", {"approve": approve})
        check_settings(settings, GRAPH)
        self._set(overrides=overrides)

    def set_profile(self, profile: str | None) -> None:
        """Set the profile of the next messages; raises `BadInput` for one that there is not."""
        load(profile, self.thread.overrides)
        self._set(profile=profile)

    def _changed(self, table: str, changes: Mapping[str, Any]) -> tuple[dict[str, Any], Settings]:
        overrides = self.thread.overrides | {f"{table}{key}": value for key, value in changes.items()}
        return overrides, load(self.thread.profile, overrides)
