"""Packages with entry points, installed as pip does."""

from pathlib import Path

BARE = """
from langgraph.graph import END, START
from pleinair.agent import nodes
from pleinair.agent.context import Context
from pleinair.agent.graph import CheckedGraph
from pleinair.agent.state import Input, Output, State
builder = CheckedGraph(State, context_schema=Context, input_schema=Input, output_schema=Output)
builder.add_node("draft", nodes.draft)
builder.add_edge(START, "draft")
builder.add_edge("draft", END)
graph = builder.compile(name="bare")
"""


def install_package(site: Path, name: str, entry_points: str) -> Path:
    """Write a package's metadata into a folder, which must be on `sys.path`, and return the folder."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    return site


def install_bare_graph(site: Path) -> Path:
    """Install the graph `bare`, which takes a prompt and no images; return the folder for `sys.path`."""
    install_package(site, "bare", "[pleinair.graph]\nbare = bare_graph:graph\n")
    (site / "bare_graph.py").write_text(BARE, encoding="utf-8")
    return site
