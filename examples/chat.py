"""Chat with the `react` graph on one LangGraph thread: `python examples/chat.py`."""

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
    """Generate an image for each request; the thread keeps the last image, its references and its ledger."""
    context = build(load(), home(), ArtifactStore(Path(folder)))
    graph = builder.compile(checkpointer=InMemorySaver())
    for request in requests or ("a hoopoe in the snow", "now make it night"):
        message = {"prompt": request, "seed": 1, "budget": {"attempts": 2}}
        values = graph.invoke(message, {"configurable": {"thread_id": "1"}}, context=context)  # type: ignore[call-overload]
        outcome = Output.model_validate(values).outcome
        if outcome and outcome.best:
            sources = [reference.hit.id for reference in outcome.best.request.references]
            print(f"{request} → {outcome.ending}: {outcome.best.request.prompt}, from {', '.join(sources)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
