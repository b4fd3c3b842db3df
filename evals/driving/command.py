"""Compare models that drive the react graph: `python -m pleinair.evals driving`.

The conversations are fixed, and images are rendered as their prompts ask, so that the table measures the
driver and not a generator. With `--profile` the chat model of that profile is a further row; it sees the
images itself. Not covered: the wording of answers, seconds, cost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pleinair.evals.driving.conversations import SHIPPED, Conversation, read_conversations
from pleinair.evals.driving.drivers import DRIVERS, build_driver
from pleinair.evals.driving.engines import Bench
from pleinair.evals.driving.measure import LineResult, run_conversation, summarise
from pleinair.evals.report import versions
from pleinair.evals.run import show_progress
from pleinair.tools.types import BadInput

_COLUMNS = {  # measure: heading, factor, decimals
    "lines_right": ("lines right (%)", 100, 0),
    "calls_valid": ("calls valid (%)", 100, 0),
    "wasted_calls": ("wasted calls a line", 1, 2),
    "recovered": ("recovered (%)", 100, 0),
    "images": ("images a line", 1, 2),
    "mllm_calls": ("MLLM calls a line", 1, 2),
}


def add(commands: Any) -> None:
    """Add the command and its options."""
    command = commands.add_parser("driving", help="compare models that drive react", description=__doc__)
    command.add_argument(
        "--drivers", default=",".join(DRIVERS), help="comma-separated drivers to compare with (all)"
    )
    command.add_argument(
        "--critic", choices=("truth", "detector"), default="truth", help="who critiques for them (truth)"
    )
    command.add_argument("--profile", default="", help="profile whose chat model is a row of its own")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of that profile"
    )
    command.add_argument("--file", type=Path, default=SHIPPED, help="conversations (100, shipped)")
    command.add_argument("--first", type=int, default=None, help="number of conversations (all)")
    command.add_argument("--json", type=Path, default=None, help="file for figures and lines")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    conversations = read_conversations(options.file)[: options.first]
    results: dict[str, list[LineResult]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in _models(options, bench := Bench(Path(folder))).items():
            results[name] = _run_all(name, model, conversations, bench)
    figures = {name: summarise(lines) for name, lines in results.items()}
    print(_write_table(figures))
    if options.json:
        _write(options, figures, results)


def _models(options: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    """Return the drivers by their rows' names; raise `BadInput` for an unknown one."""
    names = [name.strip() for name in options.drivers.split(",") if name.strip()]
    if unknown := [name for name in names if name not in DRIVERS]:
        raise BadInput(f"--drivers {unknown[0]!r}: choose from {', '.join(DRIVERS)}.")
    truth = bench.truth if options.critic == "truth" else None
    models: dict[str, Any] = {name: build_driver(name, truth) for name in names}
    if options.profile or options.set:
        models[options.profile or "your settings"] = _chat_model(options.profile or None, options.set)
    return models


def _chat_model(profile: str | None, assigned: Sequence[str]) -> Any:
    from pleinair.app.engines import build_backend
    from pleinair.app.settings import assignments, load

    return build_backend("mllm", load(profile, assignments(assigned)).mllm)


def _run_all(name: str, model: Any, conversations: Sequence[Conversation], bench: Bench) -> list[LineResult]:
    results: list[LineResult] = []
    for conversation in conversations:
        results += run_conversation(conversation, model, bench)
        right = sum(result.is_right for result in results)
        show_progress(f"{name}: {conversation.id}, {right} of {len(results)} lines right")
    return results


def _write_table(figures: dict[str, dict[str, Any]]) -> str:
    """Return the measures of each driver as a Markdown table, with 95 % intervals and numbers of items."""
    headings = ["driver", *(heading for heading, _, _ in _COLUMNS.values())]
    rows = [[name, *(_cell(measures[key], key) for key in _COLUMNS)] for name, measures in figures.items()]
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(measure: dict[str, Any], key: str) -> str:
    _, factor, decimals = _COLUMNS[key]
    if measure["mean"] is None:
        return "–"
    mean, low, high = (value * factor for value in (measure["mean"], *measure["ci"]))
    return f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}] (n = {measure['n']})"


def _write(
    options: argparse.Namespace,
    figures: dict[str, dict[str, Any]],
    results: dict[str, list[LineResult]],
) -> None:
    about = {"command": " ".join(("python -m pleinair.evals", *options.words)), "versions": versions()}
    lines = {name: [asdict(result) for result in of_driver] for name, of_driver in results.items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"about": about, "figures": figures, "lines": lines}, indent=1)
    options.json.write_text(text + "\n", encoding="utf-8")
