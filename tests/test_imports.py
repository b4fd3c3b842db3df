"""Every module imports and says what it is for, and a graph does so without the heavy libraries."""

import json
import os
import subprocess
import sys
from importlib import import_module

from support.source_tree import MODULES

HEAVY = {"torch", "diffusers", "transformers", "open_clip", "faiss", "scipy", "matplotlib"}
PROBE = "import json, sys, pleinair.graphs.pleinair; print(json.dumps(list(sys.modules)))"


def test_modules_import() -> None:
    assert not [module for module in sorted(MODULES) if not import_module(module).__doc__]


def test_graph_loads_no_heavy_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, env=os.environ, check=True)
    assert not HEAVY.intersection(json.loads(done.stdout))
