"""Catalogue of a library beside its vectors: every file with what is known about it, in one SQLite file.

It is written once and never changed: another state of the library is another file, named by its content, and
the manifest says which counts. So it is opened in constant time and read without locks, by any number of
processes. Lists of it are filtered by the beginnings of words in captions and paths, and by licenses, with
SQLite's full-text search. Not covered: SQLite's own resistance to files from strangers.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, overload
from unicodedata import normalize
from urllib.parse import quote
from uuid import uuid4
from weakref import WeakValueDictionary

from pleinair.tools.retrieval.caption_index import CaptionIndex
from pleinair.tools.retrieval.item import Item, id_key
from pleinair.tools.retrieval.licenses import Licenses, is_free, is_stated
from pleinair.tools.retrieval.manifest import REBUILD, Check, File, Skipped, check_of
from pleinair.tools.storage.files import RESERVE, explain
from pleinair.tools.types import BadInput, Hit, PleinairError

VERSION = 2  # raised when the tables are others; the catalogue is then written anew
_SCHEMA = """
CREATE TABLE items (
    position INTEGER PRIMARY KEY,
    row INTEGER,
    id TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    caption TEXT NOT NULL,
    license TEXT NOT NULL,
    source TEXT NOT NULL,
    author TEXT NOT NULL,
    boxes TEXT NOT NULL,
    tags TEXT NOT NULL,
    captioned_by TEXT NOT NULL,
    caption_model TEXT NOT NULL,
    place TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    notes TEXT NOT NULL,
    reason TEXT NOT NULL,
    crc INTEGER,
    key INTEGER NOT NULL
);
CREATE VIRTUAL TABLE words USING fts5 (text, content = '', columnsize = 0, detail = none, tokenize = ascii);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_INDEXES = """
CREATE UNIQUE INDEX items_id ON items (id);
CREATE UNIQUE INDEX items_row ON items (row) WHERE row IS NOT NULL;
CREATE INDEX items_license ON items (license, row);
CREATE INDEX items_key ON items (key);
INSERT INTO words (rowid, text) SELECT position, searched_text(id, caption, license) FROM items;
"""
_ITEM = (
    "id, size, mtime_ns, caption, license, source, author, boxes, tags, captioned_by, caption_model, place"
)
_FILE = "id, sha256, size, mtime_ns, notes, width, height, reason"
_CHUNK = 1000  # items read at a time
_KEY_DIGITS = 15  # hexadecimal ones of an id's key, which SQLite's integers hold
_ACCENTS = re.compile("[\u0300-\u036f]")
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # written without spaces: a word each
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_is_free = lru_cache(maxsize=1024)(is_free)
_ENDING = re.compile(r"(?<=\w)\.\w{2,5}(?!\S)")  # of a file name, which is not among the words
_KNOWN, _FREE = "\ue000known", "\ue000free"  # words for licenses, which no text has
_Record = tuple[Any, ...]
_OPENING = Lock()
_OPENED: WeakValueDictionary[tuple[Path, int, int], Catalogue] = WeakValueDictionary()


def open_catalogue(path: Path) -> Catalogue:
    """Open a catalogue for reading, once a process; raise `BadInput` if it is missing or damaged."""
    try:
        status = path.stat()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}).", REBUILD) from None
    key = path, status.st_ino, status.st_mtime_ns
    with _OPENING:
        catalogue = _OPENED.get(key)
        if catalogue is None:
            catalogue = _OPENED[key] = Catalogue(path)
        return catalogue


class Catalogue:
    """Catalogue that is open for reading, by any thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection | None = None) -> None:
        """Open a catalogue in constant time; raise `BadInput` if it is missing or damaged."""
        self.path = path
        self._lock = Lock()
        self._captions: CaptionIndex | None = None
        uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
        try:
            self._connection = connection or sqlite3.connect(uri, uri=True, check_same_thread=False)
            self._connection.create_function("casefold", 1, str.casefold, deterministic=True)
            self.facts: Mapping[str, Any] = {
                name: json.loads(value) for name, value in self.read("SELECT name, value FROM facts")
            }
        except (sqlite3.Error, ValueError) as error:
            raise BadInput(f"{path} cannot be read ({error}).", REBUILD) from None
        self.count: int = self.facts["count"]  # files, those that are skipped included

    @classmethod
    def temporary(cls, items: Iterable[Item], facts: Mapping[str, object]) -> Catalogue:
        """Return a catalogue of images that are not indexed, in a file that goes with the object.

        Raise `DiskFull` if the folder of temporary files has no room.
        """
        connection = sqlite3.connect("", check_same_thread=False)
        folder = Path(tempfile.gettempdir())
        try:
            _fill(connection, items, {}, {}, facts)
        except sqlite3.OperationalError as error:
            raise _explained(error, folder) from error
        return cls(folder, connection)

    def read(self, query: str, values: Sequence[object] = ()) -> list[_Record]:
        """Return the records of a query; raise `BadInput` if the file is damaged."""
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{self.path} is damaged ({error}).", REBUILD) from error

    def captions(self, folder: Path) -> CaptionIndex:
        """Return the index of the captions' words in a folder, which is mapped into memory once."""
        with self._lock:
            if self._captions is None:
                self._captions = CaptionIndex.load(folder)
            return self._captions

    def rows(self, column: str) -> Iterator[Any]:
        """Yield a column of every image with a vector, in the order of the rows."""
        return (value for (value,) in self._in_chunks(f"row, {column}", "row"))

    def row(self, id: str) -> int:
        """Return the row of an image's vector; raise `KeyError` for one that has none."""
        for (row,) in self.read("SELECT row FROM items WHERE id = ?", (id,)):
            if row is not None:
                return int(row)
        raise KeyError(id)

    def at(self, rows: Iterable[int], columns: str = "id") -> dict[int, _Record]:
        """Return the columns of the images with these rows, by row."""
        query = f"SELECT row, {columns} FROM items WHERE row IN (SELECT value FROM json_each(?))"
        return {record[0]: record[1:] for record in self.read(query, (json.dumps([*map(int, rows)]),))}

    def checks(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the CRC-32 of the vectors of images by id, of those that have one."""
        query = "SELECT id, crc FROM items WHERE id IN (SELECT value FROM json_each(?)) AND row IS NOT NULL"
        return dict(self.read(query, (json.dumps(list(ids)),)))

    def file(self, id: str) -> File | None:
        """Return the state of a file when it was read, None of one that the library did not have."""
        records = self.read(f"SELECT {_FILE} FROM items WHERE id = ?", (id,))
        return _file(records[0]) if records else None

    def files(self) -> Iterator[File]:
        """Yield every file in the order of ids, those that are not usable as `Skipped`."""
        return (_file(record) for record in self._in_chunks(f"position, {_FILE}", "position"))

    def skipped(self) -> tuple[Skipped, ...]:
        """Return the files that are not usable images, with reasons."""
        records = self.read(f"SELECT {_FILE} FROM items WHERE row IS NULL ORDER BY position")
        return tuple(file for file in map(_file, records) if isinstance(file, Skipped))

    def noted(self) -> tuple[File, ...]:
        """Return the usable files that have notes."""
        query = f"SELECT {_FILE} FROM items WHERE row IS NOT NULL AND notes != '[]' ORDER BY position"
        return tuple(map(_file, self.read(query)))

    def stamps_of(self, ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return size and mtime of those of some files that are in the catalogue, by id."""
        query = "SELECT id, size, mtime_ns FROM items WHERE id IN (SELECT value FROM json_each(?))"
        return {id: (size, mtime_ns) for id, size, mtime_ns in self.read(query, [json.dumps([*ids])])}

    def count_files(self, prefix: str) -> int:
        """Return the number of images whose ids begin with a prefix and that are in no container."""
        query = "SELECT count(*) FROM items WHERE place = '' AND substr(id, 1, ?) = ?"
        ((count,),) = self.read(query, [len(prefix), prefix])
        return int(count)

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Return size and mtime of every file by its id."""
        records = self._in_chunks("position, id, size, mtime_ns", "position")
        return {id: (size, mtime_ns) for id, size, mtime_ns in records}

    def page(self, words: str, licenses: Licenses, first: int, count: int) -> Page:
        """Return `count` images from the one with the number `first`, 0 for the first, that pass a filter.

        Args:
            words: with each of which a word of the caption or of the path begins, without case and accents;
                endings of file names are ignored.
            licenses: "known" leaves out images without a license, "free" all whose license is not known to
                permit any use.
            first: number of images to leave out at the beginning.
            count: the most images to return.
        """
        terms = [f'"{word}"*' for word in dict.fromkeys(_words(_ENDING.sub("", words)))]
        if words.strip() and not terms:
            return Page([], 0)
        if not terms and licenses == "any":
            where, values = "WHERE position >= ? ORDER BY position LIMIT ?", (first, count)
            return Page([*map(_item, self.read(f"SELECT {_ITEM} FROM items {where}", values))], self.count)
        terms += {"any": [], "known": [f'"{_KNOWN}"'], "free": [f'"{_FREE}"']}[licenses]
        matched = "FROM words WHERE words MATCH ?"
        ((total,),) = self.read(f"SELECT count(*) {matched}", [" ".join(terms)])
        part = f"SELECT rowid {matched} ORDER BY rowid LIMIT ? OFFSET ?"
        query = f"SELECT {_ITEM} FROM items WHERE position IN ({part}) ORDER BY position"
        return Page([*map(_item, self.read(query, [" ".join(terms), count, first]))], total)

    def by_key(self, key: str) -> Item | None:
        """Return the image whose id has a key by `id_key`, None for any other text."""
        if not re.fullmatch("[0-9a-f]{32}", key):
            return None
        records = self.read(f"SELECT {_ITEM} FROM items WHERE key = ?", [_key_number(key)])
        return next((item for item in map(_item, records) if id_key(item.id) == key), None)

    def _in_chunks(self, columns: str, key: str) -> Iterator[_Record]:
        """Yield records without their first column, which is the key that orders them."""
        last = -1
        while True:
            query = f"SELECT {columns} FROM items WHERE {key} > ? ORDER BY {key} LIMIT {_CHUNK}"
            records = self.read(query, (last,))
            if not records:
                return
            last = records[-1][0]
            yield from (record[1:] for record in records)


class Page(NamedTuple):
    """Part of a list, and how many entries the whole list has."""

    items: list[Item]
    total: int


class Items(Mapping[str, Item]):
    """Files of a catalogue by id, in the order of ids; each is read when it is asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def __getitem__(self, id: str) -> Item:
        records = self._catalogue.read(f"SELECT {_ITEM} FROM items WHERE id = ?", (id,))
        if not records:
            raise KeyError(id)
        return _item(records[0])

    def __contains__(self, id: object) -> bool:
        return bool(self._catalogue.read("SELECT 1 FROM items WHERE id = ?", (id,)))

    def __len__(self) -> int:
        return self._catalogue.count

    def __iter__(self) -> Iterator[str]:
        return (id for (id,) in self._catalogue._in_chunks("position, id", "position"))

    def values(self) -> Any:
        """Return the items in order, read in chunks."""
        return _Values(self)

    def items(self) -> Any:
        """Return pairs of ids and items in order, read in chunks."""
        return _Pairs(self)

    def read(self) -> Iterator[Item]:
        """Yield the items in order."""
        return map(_item, self._catalogue._in_chunks(f"position, {_ITEM}", "position"))


class _Values:
    """Items of a catalogue, which may be iterated several times."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return self._items.read()


class _Pairs(_Values):
    def __iter__(self) -> Iterator[Any]:
        return ((item.id, item) for item in self._items.read())


def has_captions(entries: Sequence[Hit]) -> bool:
    """Return whether any image has a caption; of a catalogue in constant time."""
    if isinstance(entries, Entries):
        return entries.has_captions
    return any(entry.caption.strip() for entry in entries)


class Entries(Sequence[Hit]):
    """Images with a vector as hits of score 0, in the order of the rows; read when asked for."""

    def __init__(self, catalogue: Catalogue, captions: CaptionIndex | None) -> None:
        """Read the words of the captions in the order of the rows; None where no caption has any."""
        self._catalogue, self.captions = catalogue, captions

    @property
    def has_captions(self) -> bool:
        """Return whether any image has a caption."""
        return bool(self._catalogue.facts["captions"])

    def row(self, id: str) -> int:
        """Return the row of an image; raise `KeyError` for one that is not among them."""
        return self._catalogue.row(id)

    def __len__(self) -> int:
        return int(self._catalogue.facts["usable"])

    @overload
    def __getitem__(self, row: int) -> Hit: ...
    @overload
    def __getitem__(self, row: slice) -> list[Hit]: ...
    def __getitem__(self, row: int | slice) -> Hit | list[Hit]:
        if isinstance(row, slice):
            rows = range(*row.indices(len(self)))
            records = self._catalogue.at(rows, _ITEM)
            return [_item(records[row]).hit() for row in rows]
        records = self._catalogue.at([row], _ITEM)
        if row not in records:
            raise IndexError(row)
        return _item(records[row]).hit()

    def __iter__(self) -> Iterator[Hit]:
        return (_item(record).hit() for record in self._catalogue._in_chunks(f"row, {_ITEM}", "row"))


def write_catalogue(
    folder: Path,
    items: Iterable[Item],
    files: Mapping[str, File],
    checks: Mapping[str, int],
    facts: Mapping[str, object],
) -> tuple[str, Check]:
    """Write a catalogue named by its content into a folder; return its file name and its checksums.

    Args:
        folder: of the index.
        items: in the order of their ids.
        files: by id, of every item.
        checks: CRC-32 of the vector by the SHA-256 of the file, by `check_vector`.
        facts: of the library as a whole, which JSON can express.

    Raises:
        DiskFull: it does not fit; nothing of it is left behind.
    """
    part = folder / f".{uuid4().hex}.part"
    try:
        with closing(sqlite3.connect(part)) as connection:
            _fill(connection, items, files, checks, facts)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize < RESERVE:
            raise OSError(28, "reserve")
        check = check_of(part)
        name = f"catalogue-{check.sha256[:16]}.sqlite"
        part.replace(folder / name)
    except sqlite3.OperationalError as error:
        raise _explained(error, folder) from error
    except OSError as error:
        raise explain(error, folder) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return name, check


def check_vector(vector: Any) -> int:
    """Return the CRC-32 of a vector, float32 [dim], by which a damaged row is noticed when it is used."""
    return zlib.crc32(vector.tobytes())


def _fill(
    connection: sqlite3.Connection,
    items: Iterable[Item],
    files: Mapping[str, File],
    checks: Mapping[str, int],
    facts: Mapping[str, object],
) -> None:
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(_SCHEMA)
    connection.create_function("searched_text", 3, _searched_text, deterministic=True)
    marks = ", ".join("?" * 21)
    connection.executemany(f"INSERT INTO items VALUES ({marks})", _records(items, files, checks))
    connection.executescript(_INDEXES)
    ((count, usable, captions),) = connection.execute(
        "SELECT count(*), count(row), count(nullif(trim(caption), '')) FROM items"
    )
    licenses = dict(connection.execute("SELECT license, count(*) FROM items GROUP BY license"))
    counts = {
        **{"version": VERSION, "count": count, "usable": usable, "captions": captions},
        "known": sum(images for name, images in licenses.items() if is_stated(name)),
        "free": sum(images for name, images in licenses.items() if is_free(name)),
    }
    pairs = [(name, json.dumps(value)) for name, value in (*facts.items(), *counts.items())]
    connection.executemany("INSERT INTO facts VALUES (?, ?)", pairs)
    connection.commit()


def _records(
    items: Iterable[Item], files: Mapping[str, File], checks: Mapping[str, int]
) -> Iterator[_Record]:
    row = 0
    for position, item in enumerate(items):
        file = files.get(item.id) or _unread(item)
        is_usable = not isinstance(file, Skipped)
        yield (
            position,
            row if is_usable else None,
            *(item.id, item.size, item.mtime_ns, item.caption, item.license, item.source, item.author),
            json.dumps({name: list(box) for name, box in item.boxes.items()}) if item.boxes else "",
            json.dumps(item.tags) if item.tags else "",
            *(item.captioned_by, item.caption_model, item.place, file.sha256, file.width, file.height),
            json.dumps(file.notes),
            file.reason if isinstance(file, Skipped) else "",
            checks[file.sha256] if is_usable else None,
            _key_number(id_key(item.id)),
        )
        row += is_usable


def _unread(item: Item) -> Skipped:
    return Skipped(id=item.id, sha256="", size=item.size, mtime_ns=item.mtime_ns, reason="not indexed")


def _key_number(key: str) -> int:
    return int(key[:_KEY_DIGITS], 16)


def _searched_text(id: str, caption: str, license: str) -> str:
    """Return the words by which an image is listed: those of caption and path, and what its license is."""
    licenses = [_KNOWN] * is_stated(license) + [_FREE] * _is_free(license)
    return " ".join([*_words(caption), *_words(os.path.splitext(id)[0]), *licenses])


def _words(text: str) -> list[str]:
    """Return the words of a text without case and accents; a character each of Chinese and Japanese."""
    if not text.isascii():
        plain = _ACCENTS.sub("", normalize("NFKD", text.casefold()))
        return _WORD.findall(normalize("NFC", plain))
    return _WORD.findall(text.lower())


def _explained(error: sqlite3.OperationalError, folder: Path) -> PleinairError:
    is_full = getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return explain(OSError(28 if is_full else 5, str(error)), folder)


def _item(record: _Record) -> Item:
    facts = dict(zip(_ITEM.split(", "), record, strict=True))
    boxes = json.loads(facts["boxes"]) if facts["boxes"] else {}
    facts["boxes"] = {name: tuple(box) for name, box in boxes.items()}
    facts["tags"] = tuple(json.loads(facts["tags"])) if facts["tags"] else ()
    return Item(**facts)


def _file(record: _Record) -> File:
    id, sha256, size, mtime_ns, notes, width, height, reason = record
    facts = {"id": id, "sha256": sha256, "size": size, "mtime_ns": mtime_ns, "notes": json.loads(notes)}
    facts |= {"width": width, "height": height}
    return Skipped(**facts, reason=reason) if reason else File(**facts)
