"""Say what a measurement of the papers' claims is: one column, one case, one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pleinair.agent.context import Context
from pleinair.evals.cases import Case
from pleinair.evals.papers.bench import Bench, Measures, Shelf
from pleinair.tools.retrieval.rerank import EACH, rerank
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Retriever

SIZE = 1000  # pictures of a library where nothing else is said
LOOKED_AT = 2 * EACH
CAPTION = "a photo of a {}"  # as the pocket model captions a concept


@dataclass(frozen=True, slots=True)
class Task:
    """Say what to measure; a case that comes again in another seed is the same one."""

    section: str
    column: str
    seed: int
    tier: str
    case: str
    measure: Callable[[], Measures]

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Name the task among all others of one set of engines."""
        return self.section, self.column, self.seed, self.case


def drawn(
    bench: Bench, section: str, column: str, seed: int, case: Case, graph: Any, context: Context
) -> Task:
    """Draw a case and judge the picture."""
    return Task(
        section, column, seed, case.tier, f"{case.id} {case.prompt}", partial(bench.run, graph, case, context)
    )


def first_is_right(
    shelf: Shelf, found: Retriever, name: str, looking: Bench | None = None, text: str = ""
) -> Measures:
    """Look a species up, let the model of `looking` order what was found, and check the first picture.

    Without a `text` the species is looked up as the pocket model captions it.
    """
    text = text or CAPTION.format(name)
    hits = found.search(text, LOOKED_AT)
    if looking and hits:
        pictures = [encode_png(found.open(hit.id)) for hit in hits]
        hits, _ = rerank(text, hits, pictures, model=looking.context.model)
    right = bool(hits) and shelf.stock.shows(hits[0].id, name)
    return {"R@1": float(right), "in the library": float(shelf.stock.has(name))}
