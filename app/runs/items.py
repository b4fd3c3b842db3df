"""Serializer of checkpoints that stores each item of a list once, however many checkpoints have it.

LangGraph's SQLite saver writes the whole state at each step, so a list that grows costs its square. Here a
checkpoint has the hashes of its lists' items, and the items are rows of their own, written in the same
transaction. Values of earlier versions, which have no hashes, are read as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send

TABLE = "CREATE TABLE IF NOT EXISTS items (hash BLOB PRIMARY KEY, value BLOB NOT NULL)"
INSERT = "INSERT OR IGNORE INTO items (hash, value) VALUES (?, ?)"
SELECT = "SELECT value FROM items WHERE hash = ?"
KIND = "items"  # of a value that has hashes, beside LangGraph's "msgpack"
SMALLEST = 32  # bytes of an item that is stored by its hash
CHUNK = 64  # hashes that are stored by a hash of their own, so that a list of a thousand is short, too
_HASH_BYTES = 16
# keys of dicts in place of items; their values are bytes, which plain JSON cannot have
_KEY, _CHUNKS = "pleinair:items", "pleinair:chunks"


class ItemSerializer(JsonPlusSerializer):
    """Serializer of plain data; `read` returns an item by its hash and raises LookupError for a missing one.

    `unsaved` are the items of values that were serialized and whose transaction has not ended.
    """

    def __init__(self, read: Callable[[bytes], bytes]) -> None:
        super().__init__(allowed_msgpack_modules=None, allowed_json_modules=None)
        self.unsaved: dict[bytes, bytes] = {}
        self._saved: set[bytes] = set()
        self._read = read

    def saved(self, items: Mapping[bytes, bytes]) -> None:
        """Record that items are on disk."""
        self._saved.update(items)
        for key in items:
            self.unsaved.pop(key, None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Serialize a value, with hashes in place of larger items of lists; these are in `unsaved` then."""
        kind, data = super().dumps_typed(self._split(obj))
        return (KIND if kind == "msgpack" else kind), data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Load a value with its items; raise LookupError if one is missing."""
        kind, text = data
        if kind != KIND:
            return super().loads_typed(data)
        return self._join(self._unpack(text))

    def _split(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._split(inner) for key, inner in value.items()}
        if type(value) is list:
            return self._split_list(value)
        if isinstance(value, Send):
            return Send(value.node, self._split(value.arg), timeout=value.timeout)
        return value

    def _split_list(self, values: list[Any]) -> list[Any]:
        """Return a list with the hashes of larger items, those of neighbours in one text of bytes."""
        split: list[Any] = []
        for value in map(self._split, values):
            if not (key := self._hash(value)):
                split.append(value)
            elif split and _is_hashes(split[-1], _KEY):
                split[-1][_KEY] += key
            else:
                split.append({_KEY: key})
        return [part for value in split for part in self._chunked(value)]

    def _chunked(self, value: Any) -> list[Any]:
        """Return many hashes as those of their full chunks and the rest; any other value as it is."""
        size = CHUNK * _HASH_BYTES
        if not _is_hashes(value, _KEY) or len(value[_KEY]) < size:
            return [value]
        *chunks, rest = _parts(value[_KEY] + b" ", size)
        return [{_CHUNKS: b"".join(map(self._add, chunks))}, {_KEY: rest[:-1]}]

    def _hash(self, value: Any) -> bytes:
        """Return the hash of an item that is stored by it, b"" for a small one."""
        if not isinstance(value, dict | list):
            return b""
        kind, data = super().dumps_typed(value)
        if kind != "msgpack" or len(data) < SMALLEST:
            return b""
        return self._add(data)

    def _add(self, data: bytes) -> bytes:
        """Return the hash of what is to be stored."""
        key = hashlib.blake2b(data, digest_size=_HASH_BYTES).digest()
        if key not in self._saved:
            self.unsaved[key] = data
        return key

    def _join(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._join(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [item for inner in value for item in self._items(inner)]
        if isinstance(value, Send):
            return Send(value.node, self._join(value.arg), timeout=value.timeout)
        return value

    def _items(self, value: Any) -> list[Any]:
        """Return what is stored as one item of a list: itself, or those of its hashes."""
        if _is_hashes(value, _CHUNKS):
            chunks = map(self._read, _parts(value[_CHUNKS], _HASH_BYTES))
            return [item for chunk in chunks for item in self._items({_KEY: chunk})]
        if not _is_hashes(value, _KEY):
            return [self._join(value)]
        return [self._join(self._unpack(self._read(key))) for key in _parts(value[_KEY], _HASH_BYTES)]

    def _unpack(self, data: bytes) -> Any:
        return super().loads_typed(("msgpack", data))


def _is_hashes(value: Any, key: str) -> bool:
    return isinstance(value, dict) and value.keys() == {key} and isinstance(value[key], bytes)


def _parts(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]
