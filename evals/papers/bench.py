"""Set the engines up for the papers' claims: libraries are indexed once, a picture is never drawn twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.agent.context import Context
from pleinair.agent.state import Output, changed
from pleinair.evals.papers.cases import Kind, Stock, open_stock
from pleinair.evals.run import STEPS, Judge
from pleinair.tools.retrieval.compose import RetrievalOptions, compose
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer
from pleinair.tools.retrieval.index import IndexRetriever, build_index
from pleinair.tools.types import (
    Capabilities,
    Encoder,
    GenerateRequest,
    Generator,
    ModelFault,
    Outcome,
    Retriever,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.evals.cases import Case
    from pleinair.tools.storage.artifacts import ArtifactStore

Measures = dict[str, float]


class Remembered:
    """Draw each picture once, whatever the scores of its references; implements `Generator`."""

    def __init__(self, generator: Generator, store: ArtifactStore) -> None:
        self._generator, self._store = generator, store
        self.drawn = 0  # pictures that were not there yet

    @property
    def capabilities(self) -> Capabilities:
        """Give the generator's own."""
        return self._generator.capabilities

    def generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: Callable[[int, int], None]
    ) -> Image:
        """Draw, or open what an equal request gave before, in this process or another."""

        def draw() -> Image:
            self.drawn += 1
            return self._generator.generate(request, images, on_step)

        return self._store.open(self._store.once(_drawn_from(self.capabilities.id, request), draw))


def _drawn_from(engine: str, request: GenerateRequest) -> str:
    """Name all that a generator may look at: everything but how its references were found."""
    seen = request.model_dump(mode="json")
    for reference in seen["references"]:
        del reference["hit"]
    return hashlib.sha256(f"remembered\n{engine}\n{sorted(seen.items())}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Hold the engines, and the libraries that were opened."""

    work: Path  # what is kept: libraries, indexes, pictures
    context: Context  # its retriever is replaced
    encoder: Encoder
    retrieval: RetrievalOptions
    judge: Judge
    shelves: dict[tuple[Kind, int, int], Shelf] = field(default_factory=dict)

    def shelf(self, kind: Kind, size: int, seed: int) -> Shelf:
        """Open a library with its index; both are made at their first use."""
        if (kind, size, seed) not in self.shelves:
            stock = open_stock(self.work / "libraries", kind, size, seed)
            name = hashlib.sha256(f"{self.encoder.id}\n{stock.library.folder.parent.name}".encode())
            folder = self.work / "indexes" / name.hexdigest()[:16]
            dense = IndexRetriever(
                stock.library, build_index(stock.library, self.encoder, folder), self.encoder
            )
            self.shelves[kind, size, seed] = Shelf(stock, dense)
        return self.shelves[kind, size, seed]

    def over(self, shelf: Shelf, knobs: dict[str, Any] | None = None, **changes: Any) -> Context:
        """Give a context that searches a library; `knobs` change the retrieval, `changes` the context."""
        scorer = IndexScorer(shelf.dense.vector, self.encoder)
        retriever = self.retriever(shelf, **(knobs or {}))
        return replace(self.context, retriever=retriever, scorer=scorer, **changes)

    def retriever(self, shelf: Shelf, **knobs: Any) -> Retriever:
        """Compose a retriever of a library from the settings and changes to them."""
        options = RetrievalOptions.model_validate(self.retrieval.model_dump() | knobs)
        return compose(options, shelf.dense, shelf.dense.vector)

    def run(self, graph: Any, case: Case, context: Context) -> Measures:
        """Run a graph and judge its picture; a model's fault is a wrong picture, all else raises."""
        outcome = _invoke(graph, case, context)
        if outcome.best is None:
            return {"right": 0.0, "shown": 0.0, "references": 0.0}
        shown = self.judge.shows(context.store.open(outcome.best.picture), case.species)
        return {
            "right": float(all(shown.values())),
            "shown": sum(shown.values()) / len(shown),
            "references": float(len(outcome.best.request.references)),
        }


@dataclass(frozen=True, slots=True)
class Shelf:
    """Hold a library, what is in it, and the plain look-up by vectors."""

    stock: Stock
    dense: IndexRetriever


def _invoke(graph: Any, case: Case, context: Context) -> Outcome:
    """Run the graph with the default budget; equal requests share one picture."""
    given = changed(prompt=case.prompt, seed=case.seed)
    try:
        output = Output.model_validate(graph.invoke(given, {"recursion_limit": STEPS}, context=context))
    except ModelFault as fault:
        return Outcome(ending="failed", reason=str(fault))
    return output.outcome or Outcome(ending="failed", reason="the graph ended without an outcome")
