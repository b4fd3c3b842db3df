"""Run cases through graphs and let the judge look at what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from pleinair.agent.budget import total
from pleinair.agent.state import Output, changed
from pleinair.evals.cases import Case, make_case
from pleinair.tools.types import Attempt, Outcome, Picture, PleinairError, Usage, belief

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.agent.context import Context
    from pleinair.tools.storage.artifacts import ArtifactStore

GRAPHS = {  # column: graph of the registry; RealRAG needs a training first and has a benchmark of its own
    "base": "direct",
    "imagerag": "imagerag",
    "crossmodal": "crossmodal",
    "react": "react",
    "pleinair": "pleinair",
}
STEPS = 100  # of LangGraph, far above what the default budget needs


class Judge(Protocol):
    """Say for each species name whether the picture shows it."""

    def shows(self, image: Image, names: Sequence[str]) -> dict[str, bool]:
        """Answer for every name."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Compare what the critic said of one concept in one picture with the judge's answer."""

    said: bool  # the critic's row is "present"
    belief: float  # the critic's probability, 0..1, that it is
    true: bool


@dataclass(frozen=True, slots=True)
class Result:
    """Keep how one case ended in one graph; `shown` is the judge's word on the best picture."""

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
        """Tell whether the best picture shows every species of the case."""
        return bool(self.shown) and all(self.shown.values())


def pocket_context(folder: Path) -> Context:
    """Build the pocket engines once, their pictures under `folder`."""
    from pleinair.app.engines import build
    from pleinair.app.paths import places
    from pleinair.app.settings import load
    from pleinair.tools.storage.artifacts import ArtifactStore

    settings = load("pocket")
    return build(settings, places(settings.paths.home), ArtifactStore(folder / "pictures"))


def load_graphs() -> dict[str, Any]:
    """Give the compiled graphs by column."""
    from pleinair.tools.registry import resolve

    return {column: resolve("graph", name) for column, name in GRAPHS.items()}


def warm_up(graphs: Mapping[str, Any], context: Context) -> None:
    """Run every graph once, unmeasured: models are loaded and the library is indexed at their first use."""
    for column, graph in graphs.items():
        _invoke(make_case("rare", 0, seed=-1), column, graph, context)


def run_cases(
    cases: Sequence[Case],
    graphs: Mapping[str, Any],
    context: Context,
    judge: Judge,
    on_result: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Run every case through every graph, a case's graphs one after another."""
    results = []
    for case in cases:
        for column, graph in graphs.items():
            results.append(run_case(case, column, graph, context, judge))
            on_result(results[-1])
    return results


def run_case(case: Case, column: str, graph: Any, context: Context, judge: Judge) -> Result:
    """Run one case and judge its pictures; a fault of an engine is a result, a bug raises."""
    started = perf_counter()
    output = _invoke(case, column, graph, context)
    seconds = perf_counter() - started
    outcome = output.outcome or Outcome(ending="failed", reason="the graph ended without an outcome")
    best = outcome.best
    return Result(
        case=case,
        column=column,
        ending=outcome.ending,
        reason=outcome.reason,
        shown=judge.shows(context.store.open(best.picture), case.species) if best else {},
        usage=total(output.usage),
        seconds=seconds,
        judgements=tuple(judgements(output.attempts, case, context.store, judge)),
        picture=best.picture if best else None,
    )


def _invoke(case: Case, column: str, graph: Any, context: Context) -> Output:
    """Run the graph with the default budget."""
    given = changed(prompt=case.prompt, seed=case.seed, run_id=f"{column}/{case.id}")
    try:
        return Output.model_validate(graph.invoke(given, {"recursion_limit": STEPS}, context=context))
    except PleinairError as fault:
        return Output(outcome=Outcome(ending="failed", reason=str(fault)))


def judgements(
    attempts: Sequence[Attempt], case: Case, store: ArtifactStore, judge: Judge
) -> Iterator[Judgement]:
    """Pair every ledger row about a species with the judge's answer; other rows are left out."""
    for attempt in attempts:
        rows = [row for row in attempt.ledger.rows if row.concept in case.species] if attempt.ledger else []
        true = judge.shows(store.open(attempt.picture), [row.concept for row in rows]) if rows else {}
        for row in rows:
            yield Judgement(row.status == "present", belief(row), true[row.concept])
