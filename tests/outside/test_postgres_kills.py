"""Workers, the database server and its connections are killed amid runs, which end like undisturbed ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import quick_engines as quick

PROGRAM = Path(quick.__file__).with_name("kill_cluster.py")
KILLS = int(os.environ.get("KILLS", "100"))


def test_nothing_is_lost_or_wrong_or_there_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROGRAM.parents[1]), os.environ["PYTHONPATH"]]))
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, str(PROGRAM), str(KILLS), os.environ.get("SEED", "1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["wrong"] == [] and report["left"] == 0
    assert report["rows"] == report["runs"]
    assert sum(report["done"].values()) >= KILLS and len(report["done"]) == 4
    assert [run["status"] for run in report["calm"]] == ["accepted", "stopped"], report["calm"]
    assert all(run["log"] for run in report["calm"])
