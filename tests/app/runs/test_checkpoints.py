"""Checkpoints: crafted ones run no code, and a holder without its lease writes none."""

import os
import subprocess
import sys
from pathlib import Path

import ormsgpack
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import EXT_CONSTRUCTOR_POS_ARGS, EXT_CONSTRUCTOR_SINGLE_ARG

from pleinair.app.runs.checkpoints import PLAIN, open_saver
from pleinair.app.runs.store import LeaseLost

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

    with open_saver(tmp_path / "c.sqlite", lost) as saver:
        with pytest.raises(LeaseLost):
            saver.put(CONFIG, empty_checkpoint(), {}, {})  # type: ignore[arg-type]
        with pytest.raises(LeaseLost):
            saver.put_writes(CONFIG, [("x", 1)], "task")  # type: ignore[arg-type]
        assert saver.get_tuple(CONFIG) is None  # type: ignore[arg-type]


def test_checkpoints_survive_power_cuts(tmp_path: Path) -> None:
    with open_saver(tmp_path / "c.sqlite", lambda: None) as saver:
        settings = [
            saver.conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    assert settings == ["wal", 2]
