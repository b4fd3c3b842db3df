"""Retrieve one image for several concepts with Cross-modal RAG: `python examples/crossmodal.py PROMPT`."""

import sys
from pathlib import Path

from pleinair.agent.crossmodal import CrossmodalOutput
from pleinair.app.api import home
from pleinair.app.engines import build
from pleinair.app.settings import load
from pleinair.graphs.crossmodal import graph
from pleinair.tools.storage.artifacts import ArtifactStore


def main(prompt: str = "a hoopoe beside a blue jay", folder: str = "out/store") -> None:
    """Generate an image and print which image of the Pareto set satisfies which sub-queries."""
    context = build(load(), home(), ArtifactStore(Path(folder)))
    values = graph.invoke({"prompt": prompt, "seed": 1}, context=context)  # type: ignore[call-overload]
    output = CrossmodalOutput.model_validate(values)
    for member in output.joint.members if output.joint else ():
        print(f"{member.hit.id} serves {', '.join(member.satisfied)}: {member.hit.caption}")
    best = output.outcome.best if output.outcome else None
    for reference in best.request.references if best else ():
        print(f"{reference.concept} was generated from {reference.hit.id}")
    if best:
        print(context.store.path(best.picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
