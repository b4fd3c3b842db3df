"""Tokens of images on disk: what the adaptor keeps of an image before any sub-query is known.

They depend on the image, the encoder and the adaptor alone, so a run scores images that an earlier one
encoded without opening them. One SQLite file serves all processes and adaptors; over its limit the oldest
rows go. Where it cannot be read or written, images are encoded again, which is logged once.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from torch import Tensor

MOST_BYTES = 2**30  # some 87,000 images over ViT-L/14
_WAIT = 10.0  # seconds for another process that writes
_TABLE = "CREATE TABLE IF NOT EXISTS tokens (id INTEGER PRIMARY KEY, key TEXT UNIQUE, data BLOB NOT NULL)"

_log = logging.getLogger(__name__)


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
        self._path, self._owner, self._stamp, self._most = path, owner, stamp, most_bytes
        self._failed = False

    def read(self, ids: Sequence[str], shape: Sequence[int]) -> dict[str, Tensor]:
        """Return the cached tokens of images by id, float32 of a shape; the others are left out."""
        by_key = {self._key(id): id for id in ids}
        query = f"SELECT key, data FROM tokens WHERE key IN ({','.join('?' * len(by_key))})"
        tokens = {}
        with self._reporting(), closing(self._connect()) as database:
            for key, data in database.execute(query, list(by_key)):
                tokens[by_key[key]] = torch.frombuffer(bytearray(data), dtype=torch.float32).view(*shape)
        return tokens

    def write(self, tokens: Mapping[str, Tensor]) -> None:
        """Store the tokens of images by id, and drop the oldest rows over the limit."""
        rows = [(self._key(id), value.float().contiguous().numpy().tobytes()) for id, value in tokens.items()]
        with self._reporting(), closing(self._connect()) as database, database:
            database.executemany("INSERT OR IGNORE INTO tokens (key, data) VALUES (?, ?)", rows)
            (count,) = database.execute("SELECT COUNT(*) FROM tokens").fetchone()
            query = "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens ORDER BY id LIMIT ?)"
            database.execute(query, (max(count - self._most // len(rows[0][1]), 0),))

    def _key(self, id: str) -> str:
        return hashlib.sha256(f"{self._owner}\n{self._stamp(id)}".encode()).hexdigest()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=_WAIT)
        database.execute(_TABLE)
        return database

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Log the first error of the file and go on without it."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if not self._failed:
                _log.warning("tokens of images are not cached in %s: %s", self._path, error)
            self._failed = True
