"""Run a benchmark: `python -m pleinair.evals pocket`, `papers`, `imagerag`, `data`, `scores` and others."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pleinair.evals import data_sets
from pleinair.evals.cases import make_cases
from pleinair.evals.driving import command as driving
from pleinair.evals.experiments import attribution, first_event, heap, overhead, server_lists, serving
from pleinair.evals.papers import run as papers
from pleinair.evals.report import (
    judge_rendered,
    plain,
    plot,
    plot_examples,
    summarise,
    write_markdown,
    write_report,
)
from pleinair.evals.reproduce import command as reproduce
from pleinair.evals.run import GRAPHS, Result, load_graphs, pocket_context, run_cases, show_progress, warm_up
from pleinair.evals.scale import command as scale
from pleinair.evals.scores import command as scores
from pleinair.evals.scores import recall
from pleinair.tools.types import PleinairError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark that the command line names; return 1 for an error the user can act on, else 0."""
    options = _read_options(arguments)
    try:
        options.run(options)
    except PleinairError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    description = "Run a benchmark, make a paper's tables, score images, or read a published data set."
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals", description=description)
    commands = parser.add_subparsers(required=True, metavar="command")
    pocket = commands.add_parser("pocket", help="compare the graphs in the miniature world")
    pocket.add_argument("--prompts", type=int, default=280, help="number of prompts, a multiple of 4 (280)")
    pocket.add_argument("--seed", type=int, default=1, help="seed of the prompts and of the noise (1)")
    pocket.add_argument("--json", type=Path, default=Path("reports/pocket.json"), help="file for the figures")
    pocket.add_argument("--out", type=Path, default=Path("reports"), help="folder for report and plots")
    pocket.set_defaults(run=_run_pocket)
    for module in (overhead, first_event, serving, heap, attribution, server_lists):
        module.add(commands)
    data_sets.add(commands)
    driving.add(commands)
    papers.add(commands)
    reproduce.add(commands)
    scale.add(commands)
    scores.add(commands)
    recall.add(commands)
    options = parser.parse_args(arguments)
    options.words = tuple(sys.argv[1:] if arguments is None else arguments)
    return options


def _run_pocket(options: argparse.Namespace) -> None:
    cases = make_cases(options.prompts, options.seed)
    from pleinair.evals.pocket.oracle import Oracle  # imports torch

    results, judge = list[Result](), Oracle()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        context, graphs = pocket_context(Path(folder)), load_graphs()
        warm_up(graphs, context)
        for result in run_cases(cases, graphs, context, judge):
            results.append(result)
            right, total = sum(item.right for item in results), len(cases) * len(GRAPHS)
            show_progress(
                f"{len(results)}/{total} runs, {right} right, last {result.case.id} {result.column}"
            )
        plot_examples(results, context.store, options.out / "examples.png")
    lines = "".join(json.dumps(plain(result)) + "\n" for result in results)
    (options.out / "results.jsonl").write_text(lines, encoding="utf-8")
    command = f"python -m pleinair.evals pocket --prompts {options.prompts} --seed {options.seed}"
    figures = summarise(results, prompts=options.prompts, seed=options.seed, command=command)
    figures["rendered"] = judge_rendered(cases, judge, options.seed)
    page, page_path = write_markdown(figures), options.out / "report.md"
    write_report(figures, page, options.json, page_path)
    print(file=sys.stderr)
    print(page, options.json, page_path, *plot(figures, options.out), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
