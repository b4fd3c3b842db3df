"""Talk a picture into shape on one thread of the `react` graph: `python examples/talk.py`."""

import sys
from pathlib import Path

from langgraph.checkpoint.memory import InMemorySaver

from pleinair.agent.state import Output
from pleinair.app.api import home
from pleinair.app.engines import build
from pleinair.app.settings import load
from pleinair.graphs.react import builder
from pleinair.tools.storage.artifacts import ArtifactStore


def main(*requests: str, folder: str = "out/store") -> None:
    """Draw each request after the one before; the thread keeps the picture, its references and its ledger."""
    context = build(load(), home(), ArtifactStore(Path(folder)))
    graph = builder.compile(checkpointer=InMemorySaver())
    for request in requests or ("a saverel wren in the snow", "now make it night"):
        given = {"prompt": request, "seed": 1, "budget": {"attempts": 2}}
        values = graph.invoke(given, {"configurable": {"thread_id": "1"}}, context=context)  # type: ignore[call-overload]
        done = Output.model_validate(values).outcome
        if done and done.best:
            drawn = [one.hit.id for one in done.best.request.references]
            print(f"{request} → {done.ending}: {done.best.request.prompt}, from {', '.join(drawn)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
