"""Runs survive `kill -9` at any moment: nothing is lost, wrong or repeated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILL_RUNS = Path(__file__).parents[2] / "support" / "kill_runs.py"
KILLS = int(os.environ.get("KILLS", "50"))


@pytest.mark.slow
def test_killed_runs_end_like_undisturbed_ones(place: Path) -> None:
    command = [sys.executable, str(KILL_RUNS), str(KILLS), os.environ.get("SEED", "1")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert report["hits"] >= KILLS
    assert [run["status"] for run in report["calm"]] == ["accepted", "stopped"]
    assert all(run["log"] for run in report["calm"])
    assert all(run["results"] == ["RUN-two-things.json", "RUN-two-things.png"] for run in report["calm"])
