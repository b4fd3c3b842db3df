"""The types of the installed wheel, as a project of its own sees them."""

import re
import subprocess
import sys
from pathlib import Path
from venv import EnvBuilder
from zipfile import ZipFile

from support.source_tree import ROOT
from support.wheel import build_wheel

PROGRAM = """
from pleinair.agent.context import Context
from pleinair.app.api import draw
from pleinair.app.chat.threads import Threads
from pleinair.graphs.pleinair import graph
from pleinair.tools.retrieval.compose import Corpus
from pleinair.tools.types import Hit


class Newest:
    def __init__(self, corpus: Corpus, limit: int = 100) -> None:
        self.corpus, self.limit = corpus, limit

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        return [hit.model_copy(update={"score": 1.0}) for hit in self.corpus.entries()][:k]


def main(context: Context) -> None:
    reveal_type(draw("a wren", seed=1))
    reveal_type(draw("a wren", num_images=2))
    reveal_type(graph.invoke({"prompt": "a wren"}, context=context))
    with Threads().opened("20261128-000000-00000000") as session:
        reveal_type(session.submit("a wren"))
    draw("a wren", sed=1)
    Context(model=3)
"""
# packages that take mypy most of its time, and none of which a program sees through ours
SKIPPED = (
    "accelerate diffusers httpcore2 httpx httpx2 langchain_openai langsmith numpy openai rich tokenizers "
    "tomlkit torch torchvision transformers typer"
).split()


def test_types_are_seen_in_a_project_with_the_wheel_installed(tmp_path: Path) -> None:
    EnvBuilder(symlinks=True).create(tmp_path / "env")
    (site,) = (tmp_path / "env").glob("lib/python3*/site-packages")
    (site / "base.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("-packages")), "utf-8"
    )
    (tmp_path / "build").mkdir()
    ZipFile(build_wheel(tmp_path / "build")).extractall(site)
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    skipped = ",".join(f"{package}.*" for package in SKIPPED)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\n[mypy-{skipped}]\nfollow_imports = skip\n", "utf-8"
    )
    arguments = ["--python-executable", str(tmp_path / "env/bin/python"), "--config-file", "mypy.ini"]
    files = ["program.py", *(str(ROOT / "examples" / name) for name in ("graph.py", "retriever.py"))]
    command = [sys.executable, "-m", "mypy", *arguments, *files]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    types = re.findall(r'Revealed type is "(.*)"', result.stdout)
    assert types == [
        "pleinair.app.runs.results.Result",
        "list[pleinair.app.runs.results.Result]",
        "dict[str, Any] | Any",
        "list[pleinair.app.runs.row.Run]",
    ], result.stdout + result.stderr
    errors = re.findall(r"^(\S+?):(\d+): error: (.*)  \[", result.stdout, re.MULTILINE)
    assert {(file, int(line)) for file, line, _ in errors} == {("program.py", 24), ("program.py", 25)}
    assert 'Argument "model" to "Context" has incompatible type' in result.stdout
