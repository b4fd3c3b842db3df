"""1,000 clients on one worker: what is accepted is executed, the others are told when to come again."""

from pathlib import Path

import pytest
from support import quick_engines as quick

from pleinair.evals.experiments.serving import measure_crowd

CLIENTS, GREEDY, QUEUE = 1000, 50, 64


def test_a_thousand_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    result = measure_crowd(CLIENTS, GREEDY, QUEUE)
    assert set(result["statuses"]) == {202, 429}
    assert sum(result["statuses"].values()) == GREEDY + CLIENTS - 1
    assert result["accepted"] == result["rows"] == result["finished"] >= QUEUE
    assert result["refused without Retry-After"] == 0
    turns = (
        result["single requests accepted"] + 2
    )  # one that ran already, one that the workers' turns may add
    assert result["runs of the greedy client while one of those waited"] <= turns
