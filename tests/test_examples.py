"""The examples run as they are, with the pocket models and in one process."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from support.source_tree import ROOT

from pleinair.tools.model_files.folders import SHIPPED

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
MODELS = ("generator", "encoder", "detector")
TRAINED = all(list((SHIPPED / model).rglob("*.safetensors")) for model in MODELS)
OUTPUTS = {
    "chat.py": [
        "a hoopoe in the snow → accepted: a hoopoe in the snow, from ",
        "now make it night → accepted: a hoopoe in the snow at night, from ",
    ],
    "crossmodal.py": [
        " serves hoopoe",
        "hoopoe was generated from ",
        "blue jay was generated from ",
    ],
    "draw.py": ["accepted: |stopped: ", "-a-hoopoe-in-the-snow.png"],
    "graph.py": ["attempt 0: ", "unchecked: ", " checkpoints"],
    "own_library.py": ["120 images of ", "accepted: |stopped: "],
    "reader.py": [
        "IMG_0001.png: a wren, by Ada, from the reader contact_sheet",
        "contact.txt, line 2: no image `lost.png`.",
    ],
    "retriever.py": ["seed 1: hoopoe from ", "seed 2: hoopoe from "],
    "stream.py": ["'step': 'generate', 'done': 1, 'total': 8", "draft attempts, usage", "finish outcome"],
}


def test_every_example_is_run() -> None:
    assert sorted(OUTPUTS) == EXAMPLES


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
    output = capsys.readouterr().out
    missing = [words for words in OUTPUTS[name] if not any(word in output for word in words.split("|"))]
    assert not missing, output


@pytest.mark.slow
@pytest.mark.skipif(not TRAINED, reason="pocket models not trained yet")
def test_the_programs_in_the_page_on_langgraph_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    page = (ROOT / "docs" / "langgraph.md").read_text("utf-8")
    program, approval = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(compile(program, "langgraph.md", "exec"), {})
    ending, url = capsys.readouterr().out.split()
    assert ending in ("accepted", "stopped")
    assert urlopen(url).read().startswith(b"\x89PNG")
    results: dict[str, Any] = {}
    exec(compile(approval, "langgraph.md", "exec"), results)
    assert results["question"].value["references"]
    assert results["values"]["outcome"]["ending"] in ("accepted", "stopped")


@pytest.mark.slow
@pytest.mark.skipif(not TRAINED, reason="pocket models not trained yet")
def test_events_and_own_parts_are_as_the_page_on_python_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    section = page.partition("## Events\n")[2].partition("## Approval\n")[0]
    events, parts, documents = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    results: dict[str, Any] = {}
    exec(compile(events, "python.md", "exec"), results)
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()][-1] == "ended"
    assert results["kinds"].count("started") == results["kinds"].count("ended") == 2
    assert results["result"]._repr_png_().startswith(b"\x89PNG")
    exec(compile(parts, "python.md", "exec"), results)
    assert "program:" in results["result"].sidecar.read_text("utf-8")
    exec(compile(documents, "python.md", "exec"), results)
    assert "program:Documents" in results["result"].sidecar.read_text("utf-8")
