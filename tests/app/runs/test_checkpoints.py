"""Checkpoints: crafted ones run no code, a holder without its lease writes none, each item is stored once."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import EXT_CONSTRUCTOR_POS_ARGS, EXT_CONSTRUCTOR_SINGLE_ARG
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Send

from pleinair.app.runs.checkpoints import FencedSaver, open_file
from pleinair.app.runs.items import CHUNK, ItemSerializer
from pleinair.app.runs.store import LeaseLost
from pleinair.tools.types import BadInput

PLAIN = ItemSerializer(dict[bytes, bytes]().__getitem__)
CONFIG = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def crafted(canary: Path, code: int, argument: object) -> bytes:
    packed = ormsgpack.packb(("os", "mkdir", argument))
    return ormsgpack.packb(ormsgpack.Ext(code, packed))


@pytest.mark.parametrize("kind", ["single", "positional", "json"])
def test_a_crafted_checkpoint_runs_no_code(tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    if kind == "json":
        text = (
            f'{{"lc": 2, "type": "constructor", "id": ["os", "mkdir"], "args": ["{canary}"], "kwargs": {{}}}}'
        )
        PLAIN.loads_typed(("json", text.encode()))
    elif kind == "single":
        PLAIN.loads_typed(("msgpack", crafted(canary, EXT_CONSTRUCTOR_SINGLE_ARG, str(canary))))
    else:
        PLAIN.loads_typed(("msgpack", crafted(canary, EXT_CONSTRUCTOR_POS_ARGS, (str(canary),))))
    assert not canary.exists()


def test_without_the_protection_the_code_runs(tmp_path: Path) -> None:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    canary = tmp_path / "canary"
    permissive = JsonPlusSerializer(allowed_msgpack_modules=True)
    permissive.loads_typed(("msgpack", crafted(canary, EXT_CONSTRUCTOR_SINGLE_ARG, str(canary))))
    assert canary.exists()


def test_importing_checkpoints_makes_langgraph_strict() -> None:
    code = (
        "import pleinair.app.runs.checkpoints, langgraph.checkpoint.serde._msgpack as m, sys; "
        "sys.exit(not m.STRICT_MSGPACK_ENABLED)"
    )
    env = {key: value for key, value in os.environ.items() if key != "LANGGRAPH_STRICT_MSGPACK"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_nothing_is_saved_for_a_holder_that_lost_its_lease(tmp_path: Path) -> None:
    def lost() -> None:
        raise LeaseLost("taken over")

    with open_file(tmp_path / "c.sqlite", lost) as saver:
        with pytest.raises(LeaseLost):
            saver.put(CONFIG, empty_checkpoint(), {}, {})  # type: ignore[arg-type]
        with pytest.raises(LeaseLost):
            saver.put_writes(CONFIG, [("x", 1)], "task")  # type: ignore[arg-type]
        assert saver.get_tuple(CONFIG) is None  # type: ignore[arg-type]


def test_checkpoints_survive_power_cuts(tmp_path: Path) -> None:
    with open_file(tmp_path / "c.sqlite", lambda: None) as saver:
        settings = [
            saver.conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    assert settings == ["wal", 2]


def attempts(count: int) -> list[dict[str, object]]:
    return [
        {"number": number, "prompt": f"{number} " * 200, "rows": [1, 2.5, None]} for number in range(count)
    ]


def saved(saver: FencedSaver, values: dict[str, object]) -> Checkpoint:
    checkpoint = {**empty_checkpoint(), "channel_values": values}
    saver.put(CONFIG, checkpoint, {}, {})  # type: ignore[arg-type]
    return checkpoint  # type: ignore[return-value]


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    sent = Send("act", {"snapshot": {"attempts": attempts(3)}}, timeout=7)
    values = {
        "attempts": attempts(3),
        "nested": [attempts(2), "text", 3],
        "__pregel_tasks": [sent],
        "like hashes": [{"pleinair:items": "0" * 200}],
        "mixed": [1, *attempts(2), "text", *attempts(3), {}],
        "chunks": [[0], *attempts(2 * CHUNK), "text", *attempts(3 * CHUNK - 1)],
        "empty": [],
    }
    with open_file(tmp_path / "c.sqlite", lambda: None) as saver:
        written = saved(saver, values)
        at: Any = {"configurable": CONFIG["configurable"] | {"checkpoint_id": written["id"]}}
        saver.put_writes(at, [("attempts", attempts(4))], "task")
    with open_file(tmp_path / "c.sqlite") as saver:
        read = saver.get_tuple(CONFIG)  # type: ignore[arg-type]
        assert read is not None and read.checkpoint == written
        assert read.pending_writes == [("task", "attempts", attempts(4))]
        (listed,) = saver.list(CONFIG)  # type: ignore[arg-type]
        assert listed.checkpoint == written


def test_a_step_does_not_write_earlier_items_again(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    sizes = []
    for count in (1, 101, 201):
        with open_file(path, lambda: None) as saver:
            saved(saver, {"attempts": attempts(count)})
            rows = "SELECT length(value) FROM items UNION ALL SELECT length(checkpoint) FROM checkpoints"
            sizes.append(sum(size for (size,) in saver.conn.execute(rows)))
            saved(saver, {"attempts": attempts(count), "step": [1]})
            size = sum(size for (size,) in saver.conn.execute(rows)) - sizes[-1]
        assert size < 1_500  # bytes, of 500 each and more
    assert sizes[2] - sizes[1] < 1.4 * (sizes[1] - sizes[0])  # not the square, which has 3


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    values = {"attempts": attempts(2)}
    with open_file(tmp_path / "c.sqlite", lambda: None) as saver:
        plain = SqliteSaver(saver.conn)
        checkpoint = {**empty_checkpoint(), "channel_values": values}
        plain.put(CONFIG, checkpoint, {}, {})  # type: ignore[arg-type]
        saver.conn.execute("DROP TABLE IF EXISTS items")
    with open_file(tmp_path / "c.sqlite") as saver:
        read = saver.get_tuple(CONFIG)  # type: ignore[arg-type]
    assert read is not None and read.checkpoint["channel_values"] == values


def test_a_missing_item_is_named_as_damage(tmp_path: Path) -> None:
    with open_file(tmp_path / "c.sqlite", lambda: None) as saver:
        saved(saver, {"attempts": attempts(2)})
        saver.conn.execute("DELETE FROM items")
        saver.conn.commit()
        with pytest.raises(BadInput, match="is damaged"):
            saver.get_tuple(CONFIG)  # type: ignore[arg-type]


def test_items_of_a_write_that_failed_are_written_with_the_next_one(tmp_path: Path) -> None:
    with open_file(tmp_path / "c.sqlite", lambda: None) as saver:
        saver.setup()
        saver.conn.execute("CREATE TRIGGER full BEFORE INSERT ON items BEGIN SELECT RAISE(FAIL, 'full'); END")
        with pytest.raises(sqlite3.Error):
            saved(saver, {"attempts": attempts(2)})
        assert saver.conn.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)
        saver.conn.execute("DROP TRIGGER full")
        written = saved(saver, {"attempts": attempts(2)})
        read = saver.get_tuple(CONFIG)  # type: ignore[arg-type]
    assert read is not None and read.checkpoint == written
