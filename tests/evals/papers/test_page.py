"""What `evals/PAPERS.md` names in code type exists: files, their names, commands, settings, profiles."""

import json
import re

import pytest
from support.command_help import lacking
from support.source_tree import LAYERS, ROOT

from pleinair.app.settings import profiles
from pleinair.evals.papers.report import SECTIONS

PAGE = (ROOT / "evals" / "PAPERS.md").read_text("utf-8")
SPAN = re.compile(r"`([^`]+)`")
PATH = re.compile(rf"(?:{'|'.join((*LAYERS, 'tests', 'docs'))})/[\w/.]*")
SETTING = re.compile(r'(?:\[(?P<table>\w+)\]|(?P<key>\w+\.[\w.]+)(?: = "(?P<value>\w*)")?)')
SETTINGS = (ROOT / "docs" / "settings.md").read_text("utf-8")
SPANS = sorted(set(SPAN.findall(PAGE)))
COMMANDS = [span for span in SPANS if span.startswith(("pleinair ", "python -m "))]
ROWS = re.compile(r"^\| (\d+|–) \|(.*)\|$", re.MULTILINE)


def is_defined(name: str, path: str) -> bool:
    """Return whether a module of the project defines a function, class or constant."""
    text = (ROOT / path).read_text("utf-8") if path.endswith(".py") else ""
    return bool(re.search(rf"(?:def|class) {name}\b|^{name}\b[^\n]* =", text, re.MULTILINE))


def is_setting(span: str) -> bool:
    """Return whether the reference of the settings has a table, or a key with a value that it accepts."""
    match = SETTING.fullmatch(span)
    if not match:
        return False
    if table := match["table"]:
        return f"| `{table}." in SETTINGS
    names = {match["key"], match["key"].rpartition(".")[2]}  # a backend's own table leaves its name out
    rows = [line for line in SETTINGS.splitlines() if any(line.startswith(f"| `{name}` |") for name in names)]
    return any(not match["value"] or f'"{match["value"]}"' in row for row in rows)


def unknown(line: str) -> list[str]:
    """List what a line names in code type and nothing defines; a name belongs to the last file before it."""
    missing, path = [], ""
    for span in SPAN.findall(line):
        if PATH.fullmatch(span):
            path = span
            known = (ROOT / path).exists()
        else:
            known = span in COMMANDS or span in profiles() or is_setting(span)
            known = known or (re.fullmatch(r"\w+", span) is not None and is_defined(span, path))
        missing += [] if known else [span]
    return missing


def rows(title: str) -> list[tuple[str, list[str]]]:
    """Return the rows of a paper's table: its number, then its cells."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [(number, re.split(r" \| ?", cells.strip())) for number, cells in ROWS.findall(section)]


def test_everything_in_code_type_exists() -> None:
    assert len(SPANS) > 200
    assert not [(line[:40], span) for line in PAGE.splitlines() for span in unknown(line)]


@pytest.mark.parametrize(
    "line",
    [
        "`tools/no_file.py`",
        "`tools/imagerag.py` `no_name`",
        "`decide`",
        "`tests/tools/test_imagerag.py` `test_nothing`",
        "`--scorer`",
        "`imagerag.no_key`",
        '`crossmodal.pareto = "no_value"`',
        "`[no_table]`",
    ],
)
def test_what_does_not_exist_is_found(line: str) -> None:
    assert unknown(line)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_has_its_options(line: str) -> None:
    assert not lacking(line)


@pytest.mark.parametrize(("title", "audited"), [("ImageRAG", 15), ("Cross-modal RAG", 15), ("RealRAG", 13)])
def test_a_papers_rows_are_numbered_and_say_their_state(title: str, audited: int) -> None:
    table = rows(title)
    assert [number for number, _ in table] == [str(number) for number in range(1, len(table) + 1)]
    assert len(table) >= audited
    for number, (_, state, *proof) in table:
        assert re.match(r"(done|in part|missing|ours)\b", state), number
        assert state == "missing" or "`tests/" in " ".join(proof), number


def test_the_figures_of_every_claim_are_kept() -> None:
    figures = json.loads((ROOT / "evals" / "data" / "papers.json").read_text("utf-8"))
    assert len(figures.keys() & SECTIONS) >= 10
    for name in figures.keys() & SECTIONS:
        measured = {(item["claim"], item["measure"], item["tier"]) for item in figures[name]["claims"]}
        assert {tuple(claim) for claim in SECTIONS[name].get("claims", ())} <= measured, name
