"""Index of a library that machines share, in a Postgres database: its vectors, catalogue and captions.

One machine builds the index as ever and publishes it; the others search its vectors in Postgres and fetch
everything else once, into a folder that is opened as an index is. A publication replaces the earlier one in
one transaction, so that a reader has the old state or the new one, and one that is killed leaves the old. The
vectors of earlier states stay for `KEPT` hours, for runs that have begun with them. Images are not
published: each machine reads them from the library's folders or URLs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock
from pydantic import ValidationError

from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval import changes, spelling, threshold
from pleinair.tools.retrieval.catalogue import check_vector
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.manifest import (
    FILE,
    READING,
    Manifest,
    Skipped,
    check_files,
    load_manifest,
    save_manifest,
)
from pleinair.tools.retrieval.pgvector import (
    HNSW_FROM,
    PREFIX,
    PgVectors,
    require_extension,
    require_pgvector,
    set_hnsw,
    table_of,
    write_table,
)
from pleinair.tools.retrieval.shards import Embedded
from pleinair.tools.storage.files import explain, write_whole
from pleinair.tools.storage.postgres import connection, without_password
from pleinair.tools.types import BadInput, Encoder, PleinairError, Value

if TYPE_CHECKING:
    from psycopg import Connection

KEPT = 24.0  # hours for which the vectors of an earlier state stay
_STATE = "publication.json"  # beside the manifest: which publication the folder is a copy of
_BESIDE = (changes.FILE, spelling.FILE, threshold.FILE)  # files of an index that its manifest does not name
_PART = 2**20  # bytes of a file in one row
_REBUILD = "`pleinair index` builds it anew."
_REPUBLISH = "Publish it anew with `pleinair index`; all machines need the same version."
_LOCK = 0x706C6569  # of all publications; any number that nobody else takes
_TABLES = """
CREATE TABLE IF NOT EXISTS pleinair_libraries (
    name text PRIMARY KEY,
    files text NOT NULL,
    vectors text NOT NULL,
    images int4 NOT NULL,
    published timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS pleinair_library_files (
    sha256 text,
    part int4,
    data bytea NOT NULL,
    PRIMARY KEY (sha256, part)
);
CREATE TABLE IF NOT EXISTS pleinair_vector_tables (name text PRIMARY KEY, replaced timestamptz);
"""


class NotPublished(BadInput):
    """The library is not in the database."""


class Publication(Value):
    """State of a library in a database."""

    files: dict[str, str]  # SHA-256 of each file by its path in the folder of an index
    images: int  # with a vector
    published: float  # seconds since the epoch, by the clock of the database


def publish(
    address: str,
    name: str,
    index: Index,
    *,
    approximate: bool = False,
    on_progress: Callable[[int, int], None] = no_callback,
) -> Publication:
    """Publish an index under a name in place of an earlier one; only what is new is sent.

    Args:
        address: of the database.
        name: of library and encoder, the same on all machines.
        index: built on this machine.
        approximate: whether there is an index by HNSW from `HNSW_FROM` vectors on.
        on_progress: receives vectors sent and their number; may raise to stop.

    Raises:
        BadInput: the server does not have the extension `vector`, or a vector is damaged.
        DatabaseAway: the connection is lost; the earlier publication stays, or the new one is complete.
    """
    require_pgvector()
    with connection(address) as lent:
        require_extension(lent, address)
        with lent.transaction():
            lent.execute("SET LOCAL statement_timeout = 0")
            lent.execute("SET LOCAL lock_timeout = 0")  # for another publication, which may take minutes
            lent.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            for statement in _TABLES.split(";"):
                lent.execute(statement.encode())
            table = _send_vectors(lent, index, on_progress)
            set_hnsw(lent, table, index.manifest.dim, approximate and len(index) >= HNSW_FROM)
            _replace(lent, name, _send_files(lent, index), table, len(index))
        _drop_earlier(lent)
        publication = _published(lent, name)
    assert publication
    return publication


def fetch(address: str, name: str, folder: Path) -> Publication:
    """Update the copy of a publication in a folder, by one query if it is; return what it is.

    Raises:
        NotPublished: there is nothing under the name.
        BadInput: what was published has another format, or arrives damaged.
        DatabaseAway: the server does not answer.
        DiskFull: the files do not fit.
    """
    with connection(address) as lent:
        publication = _published(lent, name)
        if publication is None:
            raise NotPublished(
                f"The library is not published in {without_password(address)} under this encoder.",
                "`pleinair index` indexes and publishes it, on one machine and with the same settings.",
            )
        if not _is_copy(folder, publication):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                if not _is_copy(folder, publication):
                    publication = _copy(lent, name, folder)
    return publication


def copied(folder: Path) -> Publication | None:
    """Return the publication that a folder is a copy of, without asking the database."""
    with suppress(OSError, ValidationError):
        return Publication.model_validate_json((folder / _STATE).read_bytes())
    return None


def open_published(folder: Path, encoder: Encoder, address: str) -> Index:
    """Open the copy of a publication, whose vectors are searched in the database; raise as `Index.open`."""
    return Index.open(folder, encoder, lambda manifest: vectors_of(manifest, address))


def vectors_of(manifest: Manifest, address: str, *, exact: bool = False) -> PgVectors:
    """Return the published vectors of an index; with `exact` an index by HNSW is not used."""
    return PgVectors(address, table_of(manifest.vectors), manifest.count, manifest.dim, exact=exact)


def embedded_of(
    index: Index, address: str, on_progress: Callable[[int, int], None] = no_callback
) -> Embedded:
    """Return the vectors of a published index in memory, so that a build does not compute them again.

    Files that were skipped are left out, damaged vectors too, and all if files are read as other pixels now.
    """
    embedded, manifest = Embedded(), index.manifest
    if manifest.reading != READING:
        return embedded
    usable = (file for file in index.catalogue.files() if not isinstance(file, Skipped))
    vectors = vectors_of(manifest, address).blocks()
    records = zip(usable, vectors, index.catalogue.rows("crc"), strict=True)
    for done, (file, vector, check) in enumerate(records, 1):
        if check_vector(vector) == check:
            embedded.files[file.id] = file
            embedded.vectors[file.sha256] = vector
        on_progress(done, manifest.count)
    return embedded


def _send_vectors(lent: Connection[Any], index: Index, on_progress: Callable[[int, int], None]) -> str:
    """Write the vectors of an index into a table of their own, unless it is there; return its name."""
    table = table_of(index.manifest.vectors)
    if lent.execute("SELECT 1 FROM pleinair_vector_tables WHERE name = %s", [table]).fetchone():
        return table
    write_table(lent, table, index.manifest.dim, _checked(index, on_progress))
    lent.execute("INSERT INTO pleinair_vector_tables VALUES (%s, NULL)", [table])
    return table


def _checked(index: Index, on_progress: Callable[[int, int], None]) -> Iterator[Any]:
    """Yield the vectors of an index in the order of the rows; raise `BadInput` for a damaged one."""
    for row, check in enumerate(index.catalogue.rows("crc")):
        vector = index.vector_at(row)
        if check_vector(vector) != check:
            raise BadInput(f"The vector of `{index.ids[row]}` in {index.folder} is damaged.", _REBUILD)
        yield vector
        if row % 1000 == 999 or row + 1 == len(index):
            on_progress(row + 1, len(index))


def _send_files(lent: Connection[Any], index: Index) -> dict[str, str]:
    """Write the files of an index that are not there yet; return the SHA-256 of all, by path."""
    manifest = index.manifest
    named = {name: check for name, check in manifest.files.items() if name != manifest.vectors}
    data = {name: (index.folder / name).read_bytes() for name in _BESIDE if (index.folder / name).is_file()}
    data[FILE] = manifest.model_copy(update={"files": named}).model_dump_json().encode()
    files = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
    files |= {name: check.sha256 for name, check in named.items()}
    for name, sha256 in files.items():
        query = "SELECT 1 FROM pleinair_library_files WHERE sha256 = %s LIMIT 1"
        if not lent.execute(query, [sha256]).fetchone():
            parts = _parts(data[name]) if name in data else _parts_of(index.folder / name)
            for number, part in enumerate(parts):
                values = [sha256, number, part]
                lent.execute("INSERT INTO pleinair_library_files VALUES (%s, %s, %s)", values)
    return files


def _parts(data: bytes) -> Iterator[bytes]:
    return (data[start : start + _PART] for start in range(0, max(len(data), 1), _PART))


def _parts_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_PART):
            yield part


def _replace(lent: Connection[Any], name: str, files: dict[str, str], table: str, images: int) -> None:
    """Let a name stand for files and vectors, and remove files that no name stands for."""
    lent.execute(
        "INSERT INTO pleinair_libraries VALUES (%s, %s, %s, %s, clock_timestamp()) ON CONFLICT (name)"
        " DO UPDATE SET files = excluded.files, vectors = excluded.vectors, images = excluded.images,"
        " published = excluded.published",
        [name, json.dumps(files, sort_keys=True), table, images],
    )
    every = lent.execute("SELECT files FROM pleinair_libraries").fetchall()
    present = [sha256 for (text,) in every for sha256 in json.loads(text).values()]
    lent.execute("DELETE FROM pleinair_library_files WHERE sha256 <> ALL(%s)", [present])
    lent.execute(
        "UPDATE pleinair_vector_tables SET replaced = CASE WHEN name IN"
        " (SELECT vectors FROM pleinair_libraries) THEN NULL ELSE coalesce(replaced, clock_timestamp()) END"
    )


def _drop_earlier(lent: Connection[Any]) -> None:
    """Drop the tables of states that were replaced `KEPT` hours ago; one that is being read stays for now."""
    from psycopg.errors import LockNotAvailable
    from psycopg.sql import SQL, Identifier

    with suppress(LockNotAvailable), lent.transaction():
        expired = lent.execute(
            "DELETE FROM pleinair_vector_tables WHERE replaced < clock_timestamp() - %s * interval '1 hour'"
            " RETURNING name",
            [KEPT],
        ).fetchall()
        for (table,) in expired:
            assert table.startswith(PREFIX)
            lent.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(table)))


def _published(lent: Connection[Any], name: str) -> Publication | None:
    """Return what a name stands for, None where nothing is published under it."""
    if lent.execute("SELECT to_regclass('pleinair_libraries')").fetchall() == [(None,)]:
        return None
    query = "SELECT files, images, extract(epoch FROM published) FROM pleinair_libraries WHERE name = %s"
    for files, images, published in lent.execute(query, [name]):
        return Publication(files=json.loads(files), images=images, published=float(published))
    return None


def _is_copy(folder: Path, publication: Publication) -> bool:
    """Return whether a folder has the files of a publication, in constant time."""
    earlier = copied(folder)
    if earlier is None or earlier.files != publication.files:
        return False
    with suppress(BadInput):
        check_files(folder, load_manifest(folder))
        return True
    return False


def _copy(lent: Connection[Any], name: str, folder: Path) -> Publication:
    """Download what a folder does not have of a publication, then replace its manifest."""
    arriving = folder / f".{uuid4().hex}.part"
    try:
        with lent.transaction():  # one state, whatever is published meanwhile
            lent.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            publication = _published(lent, name)
            if publication is None:
                raise NotPublished("The library was removed from the database meanwhile.")
            for path, sha256 in publication.files.items():
                _download(lent, arriving / path, sha256)
        _take_over(folder, arriving, publication)
    except OSError as error:
        raise explain(error, folder) from error
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return publication


def _download(lent: Connection[Any], path: Path, sha256: str) -> None:
    """Write a file of the database; raise `PleinairError` for one that arrives damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, number = hashlib.sha256(), 0
    query = "SELECT data FROM pleinair_library_files WHERE sha256 = %s AND part = %s"
    with path.open("wb") as file, lent.cursor(binary=True) as cursor:
        while record := cursor.execute(query, [sha256, number]).fetchone():
            digest.update(record[0])
            file.write(record[0])
            number += 1
    if digest.hexdigest() != sha256:
        raise PleinairError(f"The file {path.name} of a published library is damaged.", _REPUBLISH)


def _take_over(folder: Path, arriving: Path, publication: Publication) -> None:
    """Move downloaded files into a folder, the manifest last, and remove those of the earlier state."""
    manifest, earlier = _manifest_of(arriving), copied(folder)
    for path in publication.files:
        if path != FILE:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (arriving / path).replace(folder / path)
    save_manifest(folder, manifest)
    write_whole(folder / _STATE, publication.model_dump_json().encode())
    for path in earlier.files if earlier else ():
        if path not in publication.files:
            (folder / path).unlink(missing_ok=True)
            with suppress(OSError):
                (folder / path).parent.rmdir()  # of words, once it is empty


def _manifest_of(folder: Path) -> Manifest:
    """Read a manifest without a checksum; raise `PleinairError` for one of another format."""
    try:
        manifest = Manifest.model_validate_json((folder / FILE).read_bytes())
    except ValidationError:
        manifest = None
    if manifest is None or manifest.version != Manifest.model_fields["version"].default:
        raise PleinairError("The library was published by another version of this program.", _REPUBLISH)
    return manifest
