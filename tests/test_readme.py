"""What the pages tell the reader to type exists, and what they say was measured was."""

import ast
import json
import re
import shlex
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
from support.command_help import lacking
from support.source_tree import LAYERS, ROOT

from pleinair.evals.report import accuracies
from pleinair.tools.pocket.catalogue.language.reading import read
from pleinair.tools.pocket.catalogue.species import BY_NAME

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
)
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


def blocks(language: str) -> list[str]:
    """Give the fenced blocks of a language in all pages."""
    text = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES)
    fenced = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in fenced]


COMMANDS = sorted({line for block in blocks("sh") for line in block.splitlines() if line})


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make")])
def test_make_has_the_target(line: str) -> None:
    assert shlex.split(line, comments=True)[1] in TARGETS


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("make")])
def test_command_and_its_options_are_in_the_help(line: str) -> None:
    assert not lacking(line)


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
    assert not [link for link in links if "://" not in link and not _exists(ROOT / page, link)]


def _exists(page: Path, link: str) -> bool:
    """Return whether a link's file is there, with a heading for its anchor."""
    name, _, anchor = link.partition("#")
    file = page.parent / name if name else page
    if not (file.exists() and anchor):
        return file.exists()
    headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_help_of_make_lists_every_target() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony[0].split()) == TARGETS


def test_demo_draws_what_the_generator_has_never_seen() -> None:
    prompt = re.findall(r"^DEMO \?= (.*)$", MAKEFILE, re.MULTILINE)[0]
    assert [BY_NAME[mention.name].tier for mention in read(prompt).request.mentions] == ["rare"]


def test_figures_are_those_of_the_benchmark() -> None:
    published = ROOT / "evals" / "data" / "pocket.json"
    if published.exists():
        readme = (ROOT / "README.md").read_text("utf-8")
        rows = [line for line in accuracies(json.loads(published.read_text("utf-8"))) if line.startswith("|")]
        assert all(line in readme for line in rows)
