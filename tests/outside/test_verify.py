"""`pleinair verify` with models of tiny sizes: one is timed, one does not fit, one is not at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pleinair.app.cli.main import app

WORDS = ("--tiny", "--repeats", "1", "--out", "report", "--profiles", "klein_kv, small.toml, omnigen")


def test_each_model_has_its_ending_and_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("small.toml").write_text('extends = "klein"\n[generator]\nmemory_limit = 1e-6\n', "utf-8")
    parts = ("times-klein_kv", "times-small.toml", "times-omnigen")
    only = [word for part in parts for word in ("--only", part)]
    stored = Path("report/verify.json")
    for _ in range(2):
        before = json.loads(stored.read_text("utf-8"))["results"] if stored.is_file() else {}
        done = CliRunner().invoke(app, ["verify", *WORDS, *only])
        assert done.exit_code == 0, done.output
        results = json.loads(stored.read_text("utf-8"))["results"]
        assert [results[part]["ending"] for part in parts] == ["done", "out of memory", "skipped"]
        assert "would not fit" in results["times-small.toml"]["reason"]
        assert [row["references"] for row in results["times-klein_kv"]["rows"]] == [0, 1]
        assert "| klein_kv | random | no | 1 | 2 |" in Path("report/verify.md").read_text("utf-8")
    for part in parts[:2]:
        assert results[part] == before[part]
