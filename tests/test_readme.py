"""What the pages tell the reader to type exists, and what they say was measured was."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from functools import cache
from importlib import import_module

import pytest
from support.source_tree import LAYERS, ROOT
from support.species import species_named

from pleinair.evals.report import accuracies
from pleinair.tools.pocket.prompts import parse_prompt

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
)
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
MAIN = "from pleinair.app.cli.main import main; main()"


def blocks(language: str) -> list[str]:
    """Give the fenced blocks of a language in all pages."""
    text = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES)
    fenced = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in fenced]


COMMANDS = sorted({line for block in blocks("sh") for line in block.splitlines() if line})


def program(words: list[str]) -> tuple[list[str], list[str]]:
    """Split a command into what runs here and its arguments."""
    if words[0] == "pleinair":
        return [sys.executable, "-c", MAIN], words[1:]
    assert words[:2] == ["python", "-m"], f"not a command of ours: {words}"
    return [sys.executable, *words[1:3]], words[3:]


@cache
def help_of(*command: str) -> str:
    """Give the help text of a command; fail where it has none."""
    answer = subprocess.run(
        [*command, "--help"], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make")])
def test_make_has_the_target(line: str) -> None:
    assert shlex.split(line, comments=True)[1] in TARGETS


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("make")])
def test_command_and_its_options_are_in_the_help(line: str) -> None:
    start, arguments = program(shlex.split(line, comments=True))
    groups = 2 if arguments[0] in ("library", "runs", "trace") else 1
    text = help_of(*start, *arguments[:groups])
    assert not [option for option in arguments if option.startswith("--") and option not in text]


@pytest.mark.parametrize("block", blocks("python"))
def test_python_names_exist(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            assert all(hasattr(import_module(str(node.module)), alias.name) for alias in node.names)


def test_file_map_names_every_folder() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    mapped = re.findall(r"^\| `(\w+)/` \|", readme, re.MULTILINE)
    assert set(mapped) == {*LAYERS, "tests", "examples"}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"<!--.*?-->", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert not [
        link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()
    ]


def test_help_of_make_lists_every_target() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony[0].split()) == TARGETS


def test_demo_draws_what_the_generator_has_never_seen() -> None:
    prompt = re.findall(r"^DEMO \?= (.*)$", MAKEFILE, re.MULTILINE)[0]
    assert [species_named(name).tier for name in parse_prompt(prompt).subjects] == ["rare"]


def test_figures_are_those_of_the_benchmark() -> None:
    published = ROOT / "evals" / "data" / "pocket.json"
    if published.exists():
        readme = (ROOT / "README.md").read_text("utf-8")
        rows = [line for line in accuracies(json.loads(published.read_text("utf-8"))) if line.startswith("|")]
        assert all(line in readme for line in rows)
