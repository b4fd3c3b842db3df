"""Run cases through graphs and have a judge look at the images."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol

from PIL.Image import Image

from pleinair.agent.context import Context
from pleinair.agent.state import Output, changed
from pleinair.evals.cases import Case, make_case
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Attempt, Outcome, Picture, PleinairError, Usage, belief

GRAPHS = {  # column: graph of the registry; RealRAG needs a training first and has a benchmark of its own
    "base": "direct",
    "imagerag": "imagerag",
    "crossmodal": "crossmodal",
    "crossmodal_satisfied": "crossmodal",
    "react": "react",
    "pleinair": "pleinair",
}
SCORED: Mapping[str, Literal["all", "satisfied"]] = {  # sub-queries in S: the paper's, and ours
    "crossmodal": "all",
    "crossmodal_satisfied": "satisfied",
}
STEPS = 100  # LangGraph's recursion limit, far above what the default budget needs


class Judge(Protocol):
    """Independent classifier of species."""

    def shows(self, image: Image, names: Sequence[str]) -> dict[str, bool]:
        """Return for each species name whether the image shows it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Critic's row on one concept in one image, and the judge's answer."""

    present: bool  # according to the critic's row
    belief: float  # the critic's probability, 0..1, that it is present
    true: bool


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one case in one graph; `shown` holds the judge's answers on the best image."""

    case: Case
    column: str  # a key of `GRAPHS`
    ending: str
    reason: str
    shown: Mapping[str, bool]
    usage: Usage
    seconds: float  # from the prompt to the outcome
    judgements: tuple[Judgement, ...]
    picture: Picture | None = None  # the best one

    @property
    def right(self) -> bool:
        """Return whether the best image shows every species of the case."""
        return bool(self.shown) and all(self.shown.values())


def pocket_context(folder: Path, overrides: Mapping[str, Any] | None = None) -> Context:
    """Build the context of the pocket profile with some settings changed; images are stored in `folder`."""
    from pleinair.app.engines import build
    from pleinair.app.paths import places
    from pleinair.app.settings import load
    from pleinair.tools.storage.artifacts import ArtifactStore

    settings = load("pocket", overrides)
    return build(settings, places(settings.paths.home), ArtifactStore(folder / "pictures"))


def load_graphs() -> dict[str, Any]:
    """Return the compiled graphs by column."""
    from pleinair.tools.registry import resolve

    return {column: resolve("graph", name) for column, name in GRAPHS.items()}


def warm_up(graphs: Mapping[str, Any], context: Context) -> None:
    """Run every graph once, unmeasured: models are loaded and the library is indexed at their first use."""
    case = make_case("rare", 0, seed=-1)
    for column, graph in graphs.items():
        invoke(case, graph, context_of(column, context), f"{column}/{case.id}")


def context_of(column: str, context: Context) -> Context:
    """Return the context of a column: the two of Cross-modal RAG differ in the sub-queries that S counts."""
    if column not in SCORED:
        return context
    options = context.crossmodal.model_copy(update={"scored": SCORED[column]})
    return replace(context, crossmodal=options)


def run_cases(
    cases: Sequence[Case], graphs: Mapping[str, Any], context: Context, judge: Judge
) -> Iterator[Result]:
    """Run every case through every graph, a case's graphs one after another."""
    for case in cases:
        for column, graph in graphs.items():
            yield run_case(case, column, graph, context, judge)


def run_case(case: Case, column: str, graph: Any, context: Context, judge: Judge) -> Result:
    """Run one case and judge its images; an error of an engine is a failed result, a bug raises."""
    started = perf_counter()
    output = invoke(case, graph, context_of(column, context), f"{column}/{case.id}")
    seconds = perf_counter() - started
    outcome = output.outcome or Outcome(ending="failed", reason="the graph ended without an outcome")
    best = outcome.best
    return Result(
        case=case,
        column=column,
        ending=outcome.ending,
        reason=outcome.reason,
        shown=judge.shows(context.store.open(best.picture), case.species) if best else {},
        usage=Usage.total(output.usage),
        seconds=seconds,
        judgements=tuple(_judgements(output.attempts, case, context.store, judge)),
        picture=best.picture if best else None,
    )


def invoke(
    case: Case, graph: Any, context: Context, run_id: str = "", failures: type[PleinairError] = PleinairError
) -> Output:
    """Run the graph with the default budget; `failures` end in a failed outcome, other errors raise."""
    state = changed(prompt=case.prompt, seed=case.seed, run_id=run_id)
    try:
        return Output.model_validate(graph.invoke(state, {"recursion_limit": STEPS}, context=context))
    except failures as error:
        return Output(outcome=Outcome(ending="failed", reason=str(error)))


def _judgements(
    attempts: Sequence[Attempt], case: Case, store: ArtifactStore, judge: Judge
) -> Iterator[Judgement]:
    """Pair every ledger row about a species with the judge's answer; other rows are left out."""
    for attempt in attempts:
        rows = [row for row in attempt.ledger.rows if row.concept in case.species] if attempt.ledger else []
        true = judge.shows(store.open(attempt.picture), [row.concept for row in rows]) if rows else {}
        for row in rows:
            yield Judgement(row.status == "present", belief(row), true[row.concept])


def show_progress(line: str) -> None:
    """Overwrite the line of progress on standard error."""
    sys.stderr.write(f"\r{line:<110.110}")
    sys.stderr.flush()
