"""Every module imports, and the graph does so without the heavy libraries."""

import json
import os
import statistics
import subprocess
import sys
from importlib import import_module

import pytest
from tree import MODULES

HEAVY = {"torch", "diffusers", "transformers", "open_clip", "faiss", "scipy", "matplotlib"}
PROBE = """
import json, sys, time
start = time.process_time()
import langgraph.graph
langgraph = time.process_time()
import pleinair.graphs.pleinair
ours = time.process_time()
print(json.dumps({"share": (ours - langgraph) / (langgraph - start), "modules": list(sys.modules)}))
"""
RUNS = 3


def probe() -> dict[str, object]:
    """Import the graph in a fresh interpreter: its CPU time as a share of LangGraph's, and the modules."""
    answer = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, env=os.environ, check=True)
    return dict(json.loads(answer.stdout))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports(module: str) -> None:
    assert import_module(module).__doc__


def test_graph_loads_no_heavy_library() -> None:
    modules = probe()["modules"]
    assert isinstance(modules, list)
    assert not HEAVY.intersection(modules)


def test_graph_costs_less_than_langgraph_does() -> None:
    """The aim is 0.3 s; as LangGraph takes 0.8 s of CPU where that was set, the bar is 0.3 / 0.8 of it."""
    shares = [float(str(probe()["share"])) for _ in range(RUNS)]
    assert statistics.median(shares) < 0.3 / 0.8, shares
