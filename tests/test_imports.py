"""Every module imports and says what it is for, and a graph does so without the heavy libraries."""

import json
import os
import subprocess
import sys
from importlib import import_module

from support.source_tree import MODULES

HEAVY = {"torch", "diffusers", "transformers", "open_clip", "faiss", "scipy", "matplotlib"}
PROBE = "import json, sys, {}; print(json.dumps(list(sys.modules)))"


def test_modules_import() -> None:
    assert not [module for module in sorted(MODULES) if not import_module(module).__doc__]


def loaded_by(module: str) -> set[str]:
    """Return the modules that a fresh interpreter has after it imported one."""
    command = [sys.executable, "-c", PROBE.format(module)]
    done = subprocess.run(command, capture_output=True, env=os.environ, check=True)
    return set(json.loads(done.stdout))


def test_graph_loads_no_heavy_library() -> None:
    assert not HEAVY & loaded_by("pleinair.graphs.pleinair")


def test_the_process_that_decodes_images_starts_without_numpy_and_pydantic() -> None:
    assert not {"numpy", "pydantic"} & loaded_by("pleinair.tools.images.sandbox_process")
