"""Engines for the papers' claims: libraries are indexed once, and no image is generated twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from pleinair.agent.context import Context
from pleinair.evals.cases import Case
from pleinair.evals.papers.cases import Kind, LabelledLibrary, open_labelled
from pleinair.evals.run import Judge, invoke
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.compose import Corpus, RetrievalOptions, compose
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Capabilities, Encoder, GenerateRequest, Generator, ModelFault, Retriever

Measures = dict[str, float]


class CachedGenerator:
    """Generator that serves equal requests, whatever the scores of their references, from the store."""

    def __init__(self, generator: Generator, store: ArtifactStore) -> None:
        self._generator, self._store = generator, store

    @property
    def capabilities(self) -> Capabilities:
        """Return the generator's capabilities."""
        return self._generator.capabilities

    def generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: Callable[[int, int], None]
    ) -> Image:
        """Generate an image, or open that of an equal request of this or an earlier process."""
        key = request_key(self.capabilities.id, request)
        picture = self._store.once(key, lambda: self._generator.generate(request, images, on_step))
        return self._store.open(picture)


def request_key(generator: str, request: GenerateRequest) -> str:
    """Return a hash of all that a generator may read: everything except how the references were retrieved."""
    fields = request.model_dump(mode="json")
    for reference in fields["references"]:
        del reference["hit"]
    return hashlib.sha256(f"remembered\n{generator}\n{sorted(fields.items())}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Pool:
    """Labelled library with its index."""

    labelled: LabelledLibrary
    dense: IndexRetriever


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Engines and the libraries that were opened."""

    work: Path  # folder of libraries, indexes and images
    context: Context  # its retriever is replaced
    encoder: Encoder
    retrieval: RetrievalOptions
    judge: Judge
    pools: dict[tuple[Kind, int, int], Pool] = field(default_factory=dict)

    def pool(self, kind: Kind, size: int, seed: int) -> Pool:
        """Open a library with its index; both are created at their first use."""
        if (kind, size, seed) not in self.pools:
            labelled = open_labelled(self.work / "libraries", kind, size, seed)
            library = labelled.library
            name = hashlib.sha256(f"{self.encoder.id}\n{library.folder.parent.name}".encode()).hexdigest()[
                :16
            ]
            index = build_index(library, self.encoder, self.work / "indexes" / name)
            self.pools[kind, size, seed] = Pool(labelled, IndexRetriever(library, index, self.encoder))
        return self.pools[kind, size, seed]

    def over(self, pool: Pool, options: dict[str, Any] | None = None, **changes: Any) -> Context:
        """Return a context that searches a pool; `options` change the retrieval, `changes` the context."""
        scorer = IndexScorer(pool.dense.vector, self.encoder)
        retriever = self.retriever(pool, **(options or {}))
        return replace(self.context, retriever=retriever, paper_retriever=None, scorer=scorer, **changes)

    def retriever(self, pool: Pool, **changes: Any) -> Retriever:
        """Compose a retriever of a pool from the settings with some options changed."""
        options = RetrievalOptions.model_validate(self.retrieval.model_dump() | changes)
        return compose(options, Corpus(options, lambda: pool.labelled.library, lambda: pool.dense))

    def run(self, graph: Any, case: Case, context: Context) -> Measures:
        """Run a graph and judge its image; a model's fault is a wrong image, other errors raise."""
        outcome = invoke(case, graph, context, failures=ModelFault).outcome
        if outcome is None or outcome.best is None:
            return {"right": 0.0, "shown": 0.0, "references": 0.0}
        shown = self.judge.shows(context.store.open(outcome.best.picture), case.species)
        return {
            "right": float(all(shown.values())),
            "shown": sum(shown.values()) / len(shown),
            "references": float(len(outcome.best.request.references)),
        }
