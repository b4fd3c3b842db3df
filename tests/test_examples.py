"""The examples run as they are, with the pocket models and in one process."""

import runpy
import sys
from pathlib import Path

import pytest
from support.source_tree import ROOT

from pleinair.tools.model_files.folders import SHIPPED

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
PARTS = ("generator", "encoder", "detector")
TRAINED = all(list((SHIPPED / part).rglob("*.safetensors")) for part in PARTS)
SAYS = {
    "crossmodal.py": [
        " serves saverel wren",
        "saverel wren was drawn from ",
        "velmora finch was drawn from ",
    ],
    "draw.py": ["accepted: |stopped: ", "-a-saverel-wren-in-the-snow.png"],
    "graph.py": ["attempt 0: ", "unchecked: ", " checkpoints"],
    "own_library.py": ["120 pictures of ", "accepted: |stopped: "],
    "retriever.py": ["seed 1: saverel wren from ", "seed 2: saverel wren from "],
    "stream.py": ["'step': 'generate', 'done': 1, 'total': 8", "draft attempts, usage", "finish outcome"],
    "talk.py": [
        "a saverel wren in the snow → accepted: a saverel wren in the snow, from ",
        "now make it night → accepted: a saverel wren at night, from ",
    ],
}


def test_every_example_is_run() -> None:
    assert sorted(SAYS) == EXAMPLES


@pytest.mark.slow
@pytest.mark.skipif(not TRAINED, reason="pocket models not trained yet")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    said = capsys.readouterr().out
    missing = [words for words in SAYS[name] if not any(word in said for word in words.split("|"))]
    assert not missing, said
