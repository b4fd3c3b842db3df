"""Every module imports and says what it is for, and a graph does so without the heavy libraries."""

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

from support.source_tree import MODULES

HEAVY = {"torch", "diffusers", "transformers", "open_clip", "faiss", "scipy", "matplotlib"}
PROBE = "import json, sys, {}; print(json.dumps(list(sys.modules)))"


OPTIONAL = {  # modules that need a package of the extra `cluster`
    "pleinair.app.runs.postgres_saver": "langgraph.checkpoint.postgres",
    "pleinair.tools.storage.obstore_files": "obstore",
}


def test_modules_import() -> None:
    modules = [name for name in sorted(MODULES) if name not in OPTIONAL or find_module(OPTIONAL[name])]
    assert not [module for module in modules if not import_module(module).__doc__]


def find_module(name: str) -> bool:
    """Return whether a module is installed."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def loaded_by(module: str) -> set[str]:
    """Return the modules that a fresh interpreter has after it imported one."""
    command = [sys.executable, "-c", PROBE.format(module)]
    done = subprocess.run(command, capture_output=True, env=os.environ, check=True)
    return set(json.loads(done.stdout))


def test_graph_loads_no_heavy_library() -> None:
    assert not HEAVY & loaded_by("pleinair.graphs.pleinair")


def test_the_process_that_decodes_images_starts_without_numpy_and_pydantic() -> None:
    assert not {"numpy", "pydantic"} & loaded_by("pleinair.tools.images.sandbox_process")
