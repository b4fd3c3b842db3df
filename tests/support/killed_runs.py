"""Check of runs that are killed at random moments by `kill_runs.py`, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def require_undisturbed(kills: int) -> None:
    """Kill runs so many times; check that each ends like one that was never killed.

    The environment is that of `quick_engines.install`; SEED chooses other moments.
    """
    program = Path(__file__).with_name("kill_runs.py")
    command = [sys.executable, str(program), str(kills), os.environ.get("SEED", "1")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert report["hits"] >= kills
    assert [run["status"] for run in report["calm"]] == ["accepted", "stopped"]
    assert all(run["log"] for run in report["calm"])
    assert all(run["results"] == ["RUN-two-things.json", "RUN-two-things.png"] for run in report["calm"])
