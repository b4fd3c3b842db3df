"""Tokens of images on disk: what the adaptor keeps of an image before any sub-query is known.

They depend on the image, the encoder and the adaptor alone, so a run scores images that an earlier one
encoded without opening them. One file serves all adaptors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pleinair.tools.storage.blob_cache import BlobCache

MOST_BYTES = 2**30  # some 87,000 images over ViT-L/14


class TokenCache:
    """Tokens of one encoder and adaptor in a file."""

    def __init__(
        self, path: Path, owner: str, stamp: Callable[[str], str], most_bytes: int = MOST_BYTES
    ) -> None:
        """Keep tokens at `path`, which is created when it is needed.

        Args:
            path: the file.
            owner: identifies the encoder and the adaptor by their weights.
            stamp: identifies an image's content by its id.
            most_bytes: of all tokens in the file.
        """
        self._owner, self._stamp = owner, stamp
        self._cache = BlobCache(path, "tokens", most_bytes, "tokens of images")

    def read(self, ids: Sequence[str], shape: Sequence[int]) -> dict[str, Tensor]:
        """Return the cached tokens of images by id, float32 of a shape; the others are left out."""
        by_key = {self._key(id): id for id in ids}
        values = self._cache.read(list(by_key))
        return {
            by_key[key]: torch.frombuffer(bytearray(data), dtype=torch.float32).view(*shape)
            for key, data in values.items()
        }

    def write(self, tokens: Mapping[str, Tensor]) -> None:
        """Store the tokens of images by id, and drop the oldest rows over the limit."""
        self._cache.write(
            {self._key(id): value.float().contiguous().numpy().tobytes() for id, value in tokens.items()}
        )

    def _key(self, id: str) -> str:
        return hashlib.sha256(f"{self._owner}\n{self._stamp(id)}".encode()).hexdigest()
