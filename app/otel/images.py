"""Addresses of a run's images for viewers of traces: never their bytes."""

from __future__ import annotations

from dataclasses import dataclass

from pleinair.app.paths import Paths
from pleinair.tools.retrieval.item import id_key
from pleinair.tools.types import Hit

SERVED = "/runs/{run}/images/{sha256}.png"  # of `pleinair serve`


@dataclass(frozen=True)
class ImageLinks:
    """Addresses of a run's images.

    Args:
        run_id: of the run.
        places: of the home.
        setting: `tracing.image_url`; "": images are named by their SHA-256 alone.
    """

    run_id: str
    places: Paths
    setting: str = ""

    @property
    def _is_template(self) -> bool:
        return "{" in self.setting

    def image(self, sha256: str) -> str:
        """Return the address of an image of the run, or "sha256:HEX"."""
        if not self.setting:
            return f"sha256:{sha256}"
        template = self.setting if self._is_template else self.setting.rstrip("/") + SERVED
        if "{file}" in template:
            template = template.replace("{file}", self._file(sha256))
        return template.replace("{run}", self.run_id).replace("{sha256}", sha256)

    def hit(self, hit: Hit) -> str:
        """Return the address of a small copy of a library's image, "" where `pleinair serve` has none."""
        if not self.setting or self._is_template:
            return ""
        return f"{self.setting.rstrip('/')}/runs/{self.run_id}/hits/{id_key(hit.id)}.webp"

    def _file(self, sha256: str) -> str:
        """Return the path of an image in the folder of all runs."""
        sent = f"calls/{sha256}"  # to an MLLM
        names = (f"pictures/sha256/{sha256[:2]}/{sha256}.png", f"{sent}.jpg", f"{sent}.png")
        files = self.places.files(self.run_id)
        return f"{self.run_id}/{next(filter(files.stamp, names), names[-1])}"
