"""Schema of the run database, and its migrations."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pleinair.tools.types import BadInput

SCHEMA = 3  # incremented with every change of the tables, with a migration
QUEUED, RUNNING, WAITING = "queued", "running", "waiting"  # not begun or released; held; for an approval
OPEN = (QUEUED, RUNNING, WAITING)

TABLES = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    idem_key TEXT UNIQUE,
    order_json TEXT NOT NULL,
    seed BIGINT NOT NULL,
    status TEXT NOT NULL,
    lease_owner TEXT,
    lease_until DOUBLE PRECISION NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    outcome_json TEXT,
    created DOUBLE PRECISION NOT NULL,
    updated DOUBLE PRECISION NOT NULL,
    client TEXT,
    question_json TEXT,
    answer_json TEXT,
    deaths INTEGER NOT NULL DEFAULT 0,
    words TEXT NOT NULL DEFAULT '',
    graph TEXT NOT NULL DEFAULT '',
    profile TEXT NOT NULL DEFAULT ''
)
"""
LISTED = ("words", "graph", "profile")  # columns by which runs are searched, from their requests
# all that a search reads
LISTING = "CREATE INDEX listing ON runs (created, id, status, graph, profile, words)"
# runs whose folders, and input images (JSON), are still to be removed
DELETED = "CREATE TABLE deleted (id TEXT PRIMARY KEY, images TEXT NOT NULL)"
THREADS = """
CREATE TABLE threads (
    id TEXT PRIMARY KEY,
    updated DOUBLE PRECISION NOT NULL,
    words TEXT NOT NULL,
    thread_json TEXT NOT NULL
)
"""
QUEUE = "CREATE INDEX queue ON runs (created) WHERE client IS NOT NULL AND outcome_json IS NULL"
# the tables of a Postgres database, which has had none of the earlier schemas
POSTGRES = (
    # a function of SQLite that the statements use
    "CREATE OR REPLACE FUNCTION instr(TEXT, TEXT) RETURNS INTEGER LANGUAGE sql IMMUTABLE STRICT "
    "AS 'SELECT strpos($1, $2)'",
    TABLES,
    QUEUE,
    "CREATE INDEX listing ON runs (created, id)",  # an entry of an index holds at most 2.7 KB
    DELETED,
    THREADS,
    "CREATE TABLE events (run TEXT NOT NULL, seq BIGINT NOT NULL, line TEXT NOT NULL, "
    "PRIMARY KEY (run, seq))",
    # of checkpoints, see `items.py`
    "CREATE TABLE items (thread_id TEXT NOT NULL, hash BYTEA NOT NULL, value BYTEA NOT NULL, "
    "PRIMARY KEY (thread_id, hash))",
    "CREATE TABLE workers (id TEXT PRIMARY KEY, name TEXT NOT NULL, seen DOUBLE PRECISION NOT NULL)",
    "CREATE TABLE pleinair_schema (version BIGINT NOT NULL)",
)
MIGRATIONS = {  # from a schema to the next one
    1: (
        "ALTER TABLE runs ADD COLUMN client TEXT",
        "ALTER TABLE runs ADD COLUMN question_json TEXT",
        "ALTER TABLE runs ADD COLUMN answer_json TEXT",
        "ALTER TABLE runs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0",
        "UPDATE runs SET status = 'queued' WHERE status = 'waiting'",
        QUEUE,
        THREADS,
    ),
    2: (
        *(f"ALTER TABLE runs ADD COLUMN {name} TEXT NOT NULL DEFAULT ''" for name in LISTED),
        "UPDATE runs SET words = casefold(json_extract(order_json, '$.prompt')), "
        "graph = coalesce(json_extract(order_json, '$.graph'), ''), "
        "profile = coalesce(json_extract(order_json, '$.settings.profile'), '') WHERE json_valid(order_json)",
        LISTING,
        DELETED,
    ),
}


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables, or bring older ones to this schema; raises `BadInput` for newer ones."""
    db.execute("BEGIN IMMEDIATE")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    steps = [TABLES, QUEUE, LISTING, DELETED, THREADS] if version == 0 else []
    steps += [step for at in range(version or SCHEMA, SCHEMA) for step in MIGRATIONS[at]]
    for step in steps:
        db.execute(step)
    if steps:
        db.execute(f"PRAGMA user_version={SCHEMA}")
    db.execute("COMMIT")
    if version > SCHEMA:
        raise BadInput(
            f"{path}: written by a newer pleinair (schema {version}, this one reads {SCHEMA})",
            "Update pleinair or set another PLEINAIR_HOME.",
        )
