"""The tables of `evals/PAPERS.md` name code and tests that exist."""

import re

from support.source_tree import ROOT

ROWS = [line for line in (ROOT / "evals" / "PAPERS.md").read_text("utf-8").splitlines() if "`" in line]
FILE = re.compile(r"`((?:agent|app|evals|graphs|tests|tools)/[\w/]+\.py)`((?:,? `\w+`)*)")


def references() -> list[tuple[str, str]]:
    """Pair every file that the page names with each name that follows it."""
    pairs = [(file, re.findall(r"\w+", names)) for row in ROWS for file, names in FILE.findall(row)]
    return sorted({(file, name) for file, names in pairs for name in names or [""]})


def exists(file: str, name: str) -> bool:
    """Return whether a file exists and, unless the name is empty, defines it."""
    path = ROOT / file
    definition = rf"(?:def|class) {name}\b" if name else ""
    return path.is_file() and bool(re.search(definition, path.read_text("utf-8")))


def test_every_reference_of_the_page_exists() -> None:
    assert len(references()) > 100
    assert not [reference for reference in references() if not exists(*reference)]


def test_imagerag_has_its_fifteen_rows() -> None:
    numbers = re.findall(r"^\| (\d+) \|", "\n".join(ROWS), re.MULTILINE)
    assert [int(number) for number in numbers[:15]] == [*range(1, 16)]


def test_realrag_has_its_thirteen_rows() -> None:
    page = (ROOT / "evals" / "PAPERS.md").read_text("utf-8").partition("\n## RealRAG\n")[2]
    numbers = re.findall(r"^\| (\d+) \|", page.partition("\n## ")[0], re.MULTILINE)
    assert [int(number) for number in numbers] == [*range(1, 14)]


def test_crossmodal_has_its_fifteen_rows() -> None:
    page = (ROOT / "evals" / "PAPERS.md").read_text("utf-8").partition("\n## Cross-modal RAG\n")[2]
    numbers = re.findall(r"^\| (\d+) \|", page.partition("\n## ")[0], re.MULTILINE)
    assert [int(number) for number in numbers[:15]] == [*range(1, 16)]
