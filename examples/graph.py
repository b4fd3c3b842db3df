"""Invoke a graph as LangGraph does, with your own context and checkpointer: `python examples/graph.py`."""

import dataclasses
import sys
from pathlib import Path

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from pleinair.agent.state import Output
from pleinair.app.api import home
from pleinair.app.engines import build
from pleinair.app.settings import load
from pleinair.graphs.imagerag import builder
from pleinair.tools.storage.artifacts import ArtifactStore


def main(prompt: str = "a hoopoe in the snow", folder: str = "out/store") -> None:
    """Run ImageRAG; images are stored in `folder` by content, the state holds only their names."""
    context = build(load(), home(), ArtifactStore(Path(folder)))
    context = dataclasses.replace(context, k=2)  # any engine or option can be replaced
    graph = builder.compile(checkpointer=InMemorySaver())
    thread: RunnableConfig = {"configurable": {"thread_id": "1"}}
    values = graph.invoke({"prompt": prompt, "seed": 1}, thread, context=context)
    output = Output.model_validate(values)
    for attempt in output.attempts:
        print(f"attempt {attempt.number}: {context.store.path(attempt.picture)}")
    if output.outcome:
        print(f"{output.outcome.ending}: {output.outcome.reason}")
    print(f"{len(list(graph.get_state_history(thread)))} checkpoints")


if __name__ == "__main__":
    main(*sys.argv[1:])
