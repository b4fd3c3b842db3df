"""Runs leave nothing in the process that executes them."""

import json
import os
import subprocess
import sys

import pytest

WARM, MORE = 1, 1  # rounds of runs before the first measurement, and until the second
LEFT = 40  # Python blocks a run that may stay, for caches


@pytest.mark.skipif(sys.platform != "linux", reason="lists what /proc has")
@pytest.mark.usefixtures("place")
def test_runs_leave_nothing_behind() -> None:
    command = [sys.executable, "-m", "support.run_resources", str(WARM), str(MORE)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    before, after, runs = report["before"], report["after"], report["runs"]
    for kind in ("threads", "processes", "files"):
        added = sorted(set(after[kind]) - set(before[kind]))
        assert len(after[kind]) <= len(before[kind]), f"{kind} added by {runs} runs: {added}"
    assert after["blocks"] - before["blocks"] < LEFT * runs
