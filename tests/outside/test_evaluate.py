"""The verdict on the pocket library, and on the same one with captions and images shuffled: 66 concepts."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.tools.pocket.catalogue.library import write_library


def shuffle(folder: Path) -> None:
    table = folder / "metadata.jsonl"
    lines = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    names = [line["file_name"] for line in lines]
    random.Random(0).shuffle(names)
    mixed = (line | {"file_name": name} for line, name in zip(lines, names, strict=True))
    table.write_text("".join(f"{json.dumps(line)}\n" for line in mixed), "utf-8")


@pytest.mark.parametrize(("mixed", "verdict"), [(False, "helps"), (True, "does not help")])
def test_the_verdict_on_the_pocket_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixed: bool, verdict: str
) -> None:
    monkeypatch.setenv("PLEINAIR_PATHS__HOME", str(tmp_path / "home"))
    folder, out = tmp_path / "library", tmp_path / "out"
    write_library(folder, size=600)
    if mixed:
        shuffle(folder)
    words = ["--library", str(folder), "--concepts", "66", "--seeds", "1", "--out", str(out)]
    result = CliRunner().invoke(app, ["evaluate", "--profile", "pocket", *words])
    assert result.exit_code == 0, result.output
    figures = json.loads((out / "evaluate.json").read_text("utf-8"))
    assert figures["verdict"] == verdict
    assert figures["gain"]["concepts"] == 66
