"""Run a benchmark: `python -m pleinair.evals pocket`, `overhead`, `papers` or `gpu`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pleinair.evals.cases import make_cases
from pleinair.evals.experiments.overhead import AIM, import_share, measure
from pleinair.evals.gpu import run as gpu
from pleinair.evals.papers import run as papers
from pleinair.evals.plots import plot, plot_examples
from pleinair.evals.report import Figures, plain, summarise, write_markdown
from pleinair.evals.run import GRAPHS, Result, load_graphs, pocket_context, run_cases, warm_up
from pleinair.tools.types import PleinairError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark that the command line names; 1 where the user has to act, 0 otherwise."""
    options = _read_options(arguments)
    try:
        options.run(options)
    except PleinairError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="benchmark")
    pocket = commands.add_parser("pocket", help="compare the graphs in the miniature world")
    pocket.add_argument("--prompts", type=int, default=210, help="how many, split over three tiers (210)")
    pocket.add_argument("--seed", type=int, default=1, help="of the prompts and the noise (1)")
    pocket.add_argument("--json", type=Path, default=Path("reports/pocket.json"), help="where the figures go")
    pocket.add_argument("--out", type=Path, default=Path("reports"), help="where report and plots go")
    pocket.set_defaults(run=_run_pocket)
    overhead = commands.add_parser("overhead", help="compare the loop with plain calls of its verbs")
    overhead.add_argument("--runs", type=int, default=30, help="of each (30)")
    overhead.set_defaults(run=_run_overhead)
    papers.add(commands)
    gpu.add(commands)
    return parser.parse_args(arguments)


def _run_pocket(options: argparse.Namespace) -> None:
    """Run the pocket benchmark and write its JSON, report and plots."""
    cases = make_cases(options.prompts, options.seed)
    from pleinair.evals.pocket.oracle import Oracle  # torch, only once there is something to judge

    progress = Progress(len(cases) * len(GRAPHS))
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        context = pocket_context(Path(folder))
        graphs = load_graphs()
        warm_up(graphs, context)
        results = run_cases(cases, graphs, context, Oracle(), progress.show)
        plot_examples(results, context.store, options.out / "examples.png")
    lines = "".join(json.dumps(plain(result)) + "\n" for result in results)
    (options.out / "results.jsonl").write_text(lines, encoding="utf-8")
    command = f"python -m pleinair.evals pocket --prompts {options.prompts} --seed {options.seed}"
    _write(summarise(results, prompts=options.prompts, seed=options.seed, command=command), options)


def _write(figures: Figures, options: argparse.Namespace) -> None:
    """Write the figures and say where they are."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    page = options.out / "report.md"
    page.write_text(write_markdown(figures), encoding="utf-8")
    print(page.read_text(encoding="utf-8"))
    print(*(str(path) for path in (options.json, page, *plot(figures, options.out))), sep="\n")


class Progress:
    """Tell on standard error, in one line, how far a benchmark is."""

    def __init__(self, total: int) -> None:
        self.done, self.right, self.total = 0, 0, total

    def show(self, result: Result) -> None:
        """Count a result."""
        self.done, self.right = self.done + 1, self.right + result.right
        line = (
            f"\r{self.done}/{self.total} runs, {self.right} right, last {result.case.id} {result.column}   "
        )
        print(line, end="\n" if self.done == self.total else "", file=sys.stderr, flush=True)


def _run_overhead(options: argparse.Namespace) -> None:
    """Print how much longer the loop takes than its verbs called by hand, and what its import adds."""
    ratio, by_hand = measure(options.runs)
    print(f"loop / plain calls = {ratio:.2f} (median of {options.runs}; plain calls {1000 * by_hand:.1f} ms)")
    print(f"import of the loop / of LangGraph = {import_share():.2f} (the aim is under {AIM:.2f})")


if __name__ == "__main__":
    sys.exit(main())
