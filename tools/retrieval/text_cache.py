"""Vectors of texts on disk: an encoder needs 15 to 44 ms for a text, a search of 350,000 images some 2 ms.

They depend on the text and the encoder, whose id stands for its weights. One file serves all encoders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.storage.blob_cache import BlobCache
from pleinair.tools.types import Encoder, ModelFault

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

_MOST_RECENT = 1024  # texts in memory
_MOST_BYTES = 2**26  # some 32,000 texts of 512 numbers


class TextVectors:
    """Texts as an encoder's vectors; each is encoded once, all missing ones of a call together."""

    def __init__(self, encoder: Encoder, path: Path | None = None) -> None:
        """Store an encoder and the file, which is created when it is needed; None: in memory only."""
        self._encoder = encoder
        self._cache = BlobCache(path, "texts", _MOST_BYTES, "vectors of texts") if path else None
        self._recent: dict[str, bytes] = {}
        self._lock = Lock()

    def of(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts, float32 [n, dim]; raise `ModelFault` for one that is not finite."""
        keys = {hashlib.sha256(f"{self._encoder.id}\n{text}".encode()).hexdigest(): text for text in texts}
        recent = self._recent
        data = {key: recent[key] for key in keys if key in recent}
        missing = [key for key in keys if key not in data]
        if missing and self._cache:
            data |= self._cache.read(missing)
            missing = [key for key in missing if key not in data]
        if missing:
            encoded = self._encode([keys[key] for key in missing])
            new = {key: row.tobytes() for key, row in zip(missing, encoded, strict=True)}
            if self._cache:
                self._cache.write(new)
            data |= new
        self._remember(data)
        rows = {text: np.frombuffer(data[key], np.float32) for key, text in keys.items()}
        return np.stack([rows[text] for text in texts])

    def _remember(self, data: Mapping[str, bytes]) -> None:
        with self._lock:
            recent = {**self._recent, **data}
            self._recent = dict(islice(recent.items(), max(len(recent) - _MOST_RECENT, 0), None))

    def _encode(self, texts: Sequence[str]) -> Vectors:
        vectors = np.ascontiguousarray(self._encoder.encode_text(texts), dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise ModelFault(f"Encoder `{self._encoder.id}` returned no finite vector for a query.")
        return vectors
