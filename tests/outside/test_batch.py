"""A batch of 200 prompts that is killed at random: every outcome is there once, with the same images."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pleinair.app.batch.outcomes import OUTCOMES
from pleinair.app.runs.store import Runs

ROWS, CHECKED, KILLS = 200, 20, int(os.environ.get("KILLS", "5"))
PROMPTS = (
    "a hoopoe in the snow",
    "a barn owl and a hoopoe",
    "a hoopoe at night",
    "a barn owl",
)


def write_prompts(file: Path) -> None:
    """Write the rows, of few diffusion steps; every tenth is judged and generated again by the whole loop."""
    rows = [
        {"prompt": PROMPTS[number % len(PROMPTS)], "id": f"row {number}", "num_inference_steps": 1}
        | ({"budget.attempts": 2} if number % (ROWS // CHECKED) == 0 else {"graph": "direct"})
        for number in range(ROWS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def started(file: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start a batch in a home of its own."""
    command = [sys.executable, "-m", "pleinair.app.cli.main", "batch", str(file), "--out", str(folder)]
    env = os.environ | {"PLEINAIR_HOME": str(folder.with_suffix(".home")), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines(folder: Path) -> list[bytes]:
    """Return the outcomes that are complete."""
    path = folder / OUTCOMES
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def entries(folder: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, lines(folder)))


def images(folder: Path) -> dict[str, list[str]]:
    """Return all images of each row, the best one last, and how the row ended."""
    return {
        entry["id"]: [
            *(attempt["image"]["sha256"] for attempt in entry["attempts"]),
            entry["attempts"][entry["best"]]["image"]["sha256"],
            entry["status"],
        ]
        for entry in entries(folder)
    }


def kill_while_it_works(file: Path, folder: Path, wanted: int, delay: float) -> None:
    """Kill a batch some time after it has a number of outcomes."""
    process = started(file, folder)
    while len(lines(folder)) < wanted:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(delay)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_batch_that_is_killed_has_every_outcome_once(tmp_path: Path) -> None:
    file, killed, calm = tmp_path / "prompts.jsonl", tmp_path / "killed", tmp_path / "calm"
    write_prompts(file)
    undisturbed = started(file, calm)
    rng = random.Random(os.environ.get("SEED", "1"))
    for wanted in sorted(rng.sample(range(1, ROWS - 10), KILLS)):
        kill_while_it_works(file, killed, wanted, rng.uniform(0, 1.5))
        assert len(lines(killed)) < ROWS
    for folder, process in ((killed, started(file, killed)), (calm, undisturbed)):
        assert process.wait() in (0, 3)
        done = entries(folder)
        assert [entry["line"] for entry in done] == list(range(1, ROWS + 1))
        assert len({entry["run"] for entry in done}) == ROWS
        with Runs(folder.with_suffix(".home") / "runs.sqlite").readable() as db:
            assert db.execute("SELECT count(*) FROM runs").fetchone()[0] == ROWS
        assert all(Path(entry[name]).exists() for entry in done for name in ("picture", "sidecar"))
    assert images(killed) == images(calm)
    assert len({best for *_, best, _ in images(calm).values()}) == ROWS  # every row has a seed of its own
