"""Vectors of an index in Postgres with the extension `vector` (pgvector), stored bit for bit and searched.

A table has the vectors of one index, named by their content, and never changes. A search takes the best rows
by pgvector's products and computes their scores again as FAISS does, so that hits and scores are those of
the local exact search. An index by HNSW over half-precision numbers is an option for many rows: its
candidates are approximate, their scores exact, and a search of selected rows never uses it. Not covered:
HNSW over `MOST_DIM` numbers, a limit of pgvector.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from pleinair.tools.deadline import check_deadline
from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.storage.postgres import REMEDY, connection, repeated, without_password
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection
    from psycopg.sql import Composed, Identifier

    from pleinair.tools.types import Vectors

PREFIX = "pleinair_vectors_"  # of the tables
HNSW_FROM = 100_000  # vectors; an exact search takes some 0.1 s for half as many of 512 numbers
MOST_DIM = 4000  # numbers of a vector that pgvector's HNSW takes in half precision
# of HNSW, measured with queries that lie apart from the vectors, as texts do from images (evals/LOG.md)
_LINKS, _EF_BUILD = 24, 200
_EF = 1000  # candidates of a search, the most that pgvector takes
_BUILD_MEMORY = "1GB"  # of the server, for the graph; beyond it the build is slow
_MARGIN = 16  # rows beyond those asked for: pgvector's products differ from FAISS's in the last bits
_PLAIN_DIM = 1900  # numbers up to which a vector stays in its row, which has to fit into 8 kB
_AHEAD = 512  # rows that are read together where they are asked for in turn
_REMEMBERED = 8192  # vectors in memory; those of hits are compared with their checksums
_REGISTERED: WeakSet[Any] = WeakSet()


class Outdated(BadInput):
    """The vectors are no longer in the database: another state of the library has replaced them."""


def require_pgvector() -> None:
    """Raise `PleinairError` with what to install if the package `pgvector` is missing."""
    if find_spec("pgvector") is None:
        raise PleinairError("Vectors in Postgres need the package `pgvector`.", REMEDY)


def require_extension(lent: Connection[Any], address: str) -> None:
    """Create the extension `vector` in a database; raise `BadInput` if the server does not have it."""
    if lent.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
        return
    if not lent.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone():
        raise BadInput(
            f"The server of {without_password(address)} does not have the extension `vector`.",
            "Install pgvector there, 0.7 or later, or use an image that has it, such as pgvector/pgvector.",
        )
    from psycopg.errors import UniqueViolation

    with suppress(UniqueViolation):  # another process creates it at the same time
        lent.execute("CREATE EXTENSION IF NOT EXISTS vector")


def table_of(vectors: str) -> str:
    """Return the table of the vectors of a manifest, named by the same content as their file."""
    return PREFIX + vectors.removeprefix("vectors-").removesuffix(".faiss")


def write_table(lent: Connection[Any], table: str, dim: int, vectors: Iterable[Vectors]) -> None:
    """Write vectors, float32 [dim] each, into a new table, their rows numbered from 0.

    The connection is in a transaction, so that nothing is left of what is interrupted.
    """
    from psycopg.sql import SQL, Identifier, Literal

    name = Identifier(table)
    columns = SQL("CREATE TABLE {} (row int4 NOT NULL, vector vector({}) NOT NULL)")
    lent.execute(columns.format(name, Literal(dim)))
    if dim <= _PLAIN_DIM:
        lent.execute(SQL("ALTER TABLE {} ALTER COLUMN vector SET STORAGE PLAIN").format(name))
    _register(lent)
    command = SQL("COPY {} (row, vector) FROM STDIN (FORMAT BINARY)").format(name)
    with lent.cursor() as cursor, cursor.copy(command) as copy:
        copy.set_types(["int4", "vector"])
        for row, vector in enumerate(vectors):
            copy.write_row((row, vector))
    lent.execute(SQL("ALTER TABLE {} ADD PRIMARY KEY (row)").format(name))
    lent.execute(SQL("ANALYZE {}").format(name))


def set_hnsw(lent: Connection[Any], table: str, dim: int, wanted: bool) -> None:
    """Build the index by HNSW of a table if it is wanted and missing, or drop it; in a transaction."""
    from psycopg.sql import SQL, Identifier, Literal

    name = Identifier(_hnsw_of(table))
    if not wanted or dim > MOST_DIM:
        lent.execute(SQL("DROP INDEX IF EXISTS {}").format(name))
        return
    lent.execute("SELECT set_config('maintenance_work_mem', %s, true)", [_BUILD_MEMORY])
    build = SQL(
        "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw ((vector::halfvec({})) halfvec_ip_ops)"
        " WITH (m = {}, ef_construction = {})"
    )
    values = (Literal(dim), Literal(_LINKS), Literal(_EF_BUILD))
    lent.execute(build.format(name, Identifier(table), *values))


class PgVectors:
    """Vectors of an index in a table of `write_table`; threads may share it.

    It has the interface of the opened vectors of `Index`. What only reads is repeated while the server is
    away, for half a minute at most or until the run's deadline. Its methods raise `Outdated` once the table
    is gone, and `DatabaseAway`.
    """

    def __init__(self, address: str, table: str, count: int, dim: int, *, exact: bool = False) -> None:
        """Connect to nothing yet; with `exact` an index by HNSW is not used."""
        self._address, self._table, self._count, self._dim = address, table, count, dim
        self._exact = exact
        self._is_approximate: bool | None = False if exact else None  # None: not known yet
        self._recent: OrderedDict[int, Vectors] = OrderedDict()
        self._lock = Lock()
        self.vectors = self

    def search(
        self, queries: Vectors, k: int, selection: Selection | None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Return scores and rows, each [n, k], of the `k` best for queries [n, dim]; -1 after the last."""
        from pleinair.tools.retrieval.faiss_index import find_nearest, load_faiss

        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        for n, query in enumerate(np.ascontiguousarray(queries, np.float32)):
            candidates = self._candidates(query, k + _MARGIN, selection)
            places, vectors = np.array([*candidates], np.int64), np.stack([*candidates.values()])
            exact = load_faiss().IndexFlatIP(self._dim)
            exact.add(vectors)
            found = min(k, len(places))
            best, order = find_nearest(exact, query[None], found)
            scores[n, :found], rows[n, :found] = best[0], places[order[0]]
        return scores, rows

    def reconstruct(self, row: int) -> Vectors:
        """Return the vector of a row, float32 [dim]; raise `IndexError` for one that does not exist."""
        with self._lock:
            vector, is_next = self._recent.get(row), row - 1 in self._recent
        if vector is not None:
            return vector
        first: Vectors = self.reconstruct_n(row, _AHEAD if is_next else 1)[0]
        return first

    def reconstruct_n(self, start: int, count: int) -> Vectors:
        """Return up to `count` vectors from a row on, float32 [n, dim]; raise `IndexError` without any."""
        clause = "WHERE row >= %s AND row < %s ORDER BY row"
        vectors = self._read(clause, (start, min(start + count, self._count)))
        if not vectors:
            raise IndexError(start)
        return np.stack([*vectors.values()])

    def blocks(self, size: int = 4096) -> Iterator[Vectors]:
        """Yield all vectors in the order of the rows, float32 [dim]; `size` are read at a time."""
        for start in range(0, self._count, size):
            yield from self.reconstruct_n(start, size)

    def _candidates(self, query: Vectors, size: int, selection: Selection | None) -> dict[int, Vectors]:
        """Return the vectors of the best rows, by row in ascending order."""
        if selection is not None:
            clause = "WHERE row = ANY(%s::int4[]) ORDER BY vector <#> %s, row LIMIT %s"
            return self._read(clause, (selection.rows.tolist(), query, size))
        if size <= _EF // 2 and self._has_hnsw():
            half = f"halfvec({self._dim})"
            clause = f"ORDER BY vector::{half} <#> %s::vector::{half} LIMIT %s"
            return self._read(clause, (query, size), ef=_EF)
        return self._read("ORDER BY vector <#> %s, row LIMIT %s", (query, size))

    def _has_hnsw(self) -> bool:
        if self._is_approximate is None:
            with _reading(self._address) as lent:
                ((name,),) = lent.execute("SELECT to_regclass(%s)", [_hnsw_of(self._table)]).fetchall()
            self._is_approximate = name is not None
        return self._is_approximate

    def _read(self, clause: str, values: Sequence[object], ef: int = 0) -> dict[int, Vectors]:
        """Return rows with their vectors in ascending order, and remember the vectors."""
        from psycopg.sql import SQL

        statement = SQL("SELECT row, vector FROM {} ").format(_name(self._table)) + SQL(clause)
        records = repeated(lambda: self._records(statement, values, ef), check=check_deadline)
        vectors = {int(row): vector.to_numpy() for row, vector in sorted(records, key=lambda pair: pair[0])}
        with self._lock:
            self._recent.update(vectors)
            while len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        return vectors

    def _records(self, statement: Composed, values: Sequence[object], ef: int) -> list[tuple[int, Any]]:
        from psycopg.errors import UndefinedTable

        with _reading(self._address) as lent, lent.cursor(binary=True) as cursor:
            try:
                with lent.transaction() if ef else nullcontext():
                    if ef:
                        cursor.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(ef)])
                    records: list[tuple[int, Any]] = cursor.execute(statement, values).fetchall()
                    return records
            except UndefinedTable:
                where = without_password(self._address)
                raise Outdated(
                    f"The vectors of this state of the library are no longer in {where}.",
                    "Start again; `pleinair index` publishes the library where nobody has.",
                ) from None


@contextmanager
def _reading(address: str) -> Iterator[Connection[Any]]:
    """Lend a connection that knows vectors."""
    require_pgvector()
    with connection(address) as lent:
        _register(lent)
        yield lent


def _register(lent: Connection[Any]) -> None:
    """Let a connection read and write vectors, once; raise `BadInput` without the extension."""
    from pgvector.psycopg import register_vector
    from psycopg import ProgrammingError

    if lent in _REGISTERED:
        return
    try:
        register_vector(lent)
    except ProgrammingError as error:
        message = "The database does not have the extension `vector`."
        raise BadInput(message, "`pleinair index` creates it and publishes the library.") from error
    _REGISTERED.add(lent)


def _hnsw_of(table: str) -> str:
    return f"{table}_hnsw"


def _name(table: str) -> Identifier:
    from psycopg.sql import Identifier

    return Identifier(table)
