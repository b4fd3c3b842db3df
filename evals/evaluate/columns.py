"""Four ways of generating on equal seeds: no reference, the retrieved image, a true image, the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pleinair.app.settings import Settings
from pleinair.evals.evaluate.split import Split
from pleinair.evals.reproduce.generate import Studio, Work, work_of
from pleinair.evals.reproduce.plan import Arm, Line, Subject, Variant
from pleinair.tools.retrieval.filters import Filtered, Wrapper, without
from pleinair.tools.retrieve import retrieve as retrieve_concept
from pleinair.tools.types import Concept, Hit, Retriever

if TYPE_CHECKING:
    from pleinair.agent.context import Context

NONE, RETRIEVED, TRUE, LOOP = "none", "retrieved", "true", "loop"
_ONE = {"realrag.method": "zero", "realrag.references": 1}  # the hit that is handed over, always used
COLUMNS = {  # by name: title, graph, settings
    NONE: ("no reference", "direct", {}),
    RETRIEVED: ("retrieved image", "realrag", _ONE),  # its hit is that of the concept's name
    TRUE: ("true image", "realrag", _ONE),
    LOOP: ("loop", "pleinair", {}),
}


def works_of(split: Split, settings: Settings) -> list[Work]:
    """Return what each column has to generate."""
    return [
        work_of(
            Arm("", name),
            Line(title, Variant(name, graph, changes)),
            settings,
            changes,
            (),
            split.identity,
            split.subjects,
        )
        for name, (title, graph, changes) in COLUMNS.items()
    ]


class _Fixed(Wrapper):
    """Retriever whose hits are known before."""

    def __init__(self, source: Retriever, hits: Sequence[Hit]) -> None:
        super().__init__(source)
        self._hits = list(hits)

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Return the first `k` hits, whatever the query."""
        return self._hits[:k]


@dataclass(kw_only=True)
class LibraryStudio(Studio):
    """Studio whose columns differ in the retriever; no pool has an image that is held out."""

    split: Split

    def context_for(self, work: Work, subject: Subject, context: Context) -> Context:
        """Return the context of one prompt with the retriever of its column."""
        context, library = super().context_for(work, subject, context), self.split.library
        pool = Filtered(context.retriever, without(self.split.excluded))
        match work.arm.variant:
            case "retrieved":
                return context.with_retrievers(_Fixed(pool, top_hits(subject, pool, context)), None)
            case "true":
                id = self.split.part[subject.group].reference
                hit = library.items[id].hit(1.0)
                return context.with_retrievers(_Fixed(context.retriever, [hit]), None)
        return context.with_retrievers(pool, None)


def top_hits(subject: Subject, pool: Retriever, context: Context) -> list[Hit]:
    """Return what the configured retriever finds for a concept's name above its threshold, best first."""
    retrieval = retrieve_concept(
        Concept(name=subject.group, caption=subject.group),
        retriever=pool,
        k=context.k,
        threshold=context.threshold,
        seed=subject.seed,
        with_name=True,
    )
    return [] if retrieval.abstained else [hit for hit in retrieval.hits if retrieval.accepts(hit)]
