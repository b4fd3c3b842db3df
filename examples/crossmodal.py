"""Find one picture for several things with Cross-modal RAG: `python examples/crossmodal.py PROMPT`."""

import sys
from pathlib import Path

from pleinair.agent.crossmodal import CrossmodalOutput
from pleinair.app.api import home
from pleinair.app.engines import build
from pleinair.app.settings import load
from pleinair.graphs.crossmodal import graph
from pleinair.tools.storage.artifacts import ArtifactStore


def main(prompt: str = "a saverel wren beside a velmora finch", folder: str = "out/store") -> None:
    """Draw, and say which picture of the Pareto set serves which part of the prompt, by caption and looks."""
    context = build(load(), home(), ArtifactStore(Path(folder)))
    values = graph.invoke({"prompt": prompt, "seed": 1}, context=context)  # type: ignore[call-overload]
    output = CrossmodalOutput.model_validate(values)
    for one in output.joint.members if output.joint else ():
        print(f"{one.hit.id} serves {', '.join(one.satisfied)}: {one.hit.caption}")
    best = output.outcome.best if output.outcome else None
    for reference in best.request.references if best else ():
        print(f"{reference.concept} was drawn from {reference.hit.id}")
    if best:
        print(context.store.path(best.picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
