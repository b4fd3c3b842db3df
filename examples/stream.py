"""Stream the events of a graph in an event loop: `python examples/stream.py "a hoopoe in the snow"`."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from pleinair.app.api import home
from pleinair.app.engines import build
from pleinair.app.settings import load
from pleinair.graphs.pleinair import graph
from pleinair.tools.storage.artifacts import ArtifactStore


async def follow(prompt: str) -> None:
    """Print every diffusion step and the state keys that each node changed."""
    context = build(load(), home(), ArtifactStore(Path("out/store")))
    values: Any = {"prompt": prompt, "seed": 1, "run_id": "stream", "budget": {"attempts": 2}}
    async for part in graph.astream(values, context=context, stream_mode=["updates", "custom"], version="v2"):
        if part["type"] == "custom":
            print(f"  {part['data']}")
        elif part["type"] == "updates":
            for node, change in part["data"].items():
                print(node, ", ".join(change or ()))


def main(prompt: str = "a hoopoe in the snow") -> None:
    """Stream one run."""
    asyncio.run(follow(prompt))


if __name__ == "__main__":
    main(*sys.argv[1:])
