"""A run survives `kill -9` at any moment: nothing lost, nothing wrong, nothing twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NURSERY = Path(__file__).parents[2] / "support" / "kill_runs.py"
KILLS = int(os.environ.get("KILLS", "50"))


@pytest.mark.slow
def test_killed_runs_end_like_undisturbed_ones(place: Path) -> None:
    command = [sys.executable, str(NURSERY), str(KILLS), os.environ.get("SEED", "1")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["wrong"] == []
    assert seen["hits"] >= KILLS
    assert [run["status"] for run in seen["calm"]] == ["accepted", "stopped"]
    assert all(run["log"] for run in seen["calm"])
    assert all(run["results"] == ["RUN-two-things.json", "RUN-two-things.png"] for run in seen["calm"])
