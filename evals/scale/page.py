"""Plots and tables of the benchmarks' figures: `scale report DIR`, which measures nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from pleinair.evals.report import table
from pleinair.evals.scale.arithmetic import BEARABLE, MANY, amount, largest_embedding, project
from pleinair.evals.scale.command import write_figures
from pleinair.evals.scale.plots import most_steps, plot_all
from pleinair.tools.types import BadInput

Figures = Mapping[str, Any]  # JSON of the benchmarks, by the name of their file
Row = Mapping[str, object]
Line = tuple[str, str, str, str, str]  # subject, size, ours, reference, ratio
MERGED = "scale"  # the file of all of them


def add_page_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of the page whose tables are written."""
    text = "page to fill, as evals/SCALE.md; plots go to `plots` and figures to `data` beside it"
    parser.add_argument("--page", type=Path, help=text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("folder", type=Path, help="folder with the figures, one JSON file a benchmark")
    add_page_option(parser)


def run(options: argparse.Namespace) -> None:
    """Write the plots and the tables, into the page or beside the figures."""
    figures = _read_figures(options.folder)
    beside = options.page.parent if options.page else options.folder
    merged = options.json or (beside / "data" if options.page else beside) / f"{MERGED}.json"
    text = options.page.read_text(encoding="utf-8") if options.page else EMPTY
    filled = fill(text, figures)
    for path in plot_all(figures, beside / "plots"):
        print(f"written: {path}")
    page = options.page or options.folder / "SCALE.md"
    page.write_text(filled, encoding="utf-8")
    write_figures(merged, figures)
    print(f"written: {page}, {merged}")


def _read_figures(folder: Path) -> dict[str, Any]:
    """Return the figures of a folder by the names of its files; raise `BadInput` if there are none."""
    files = [path for path in sorted(folder.glob("*.json")) if path.stem != MERGED]
    if not files:
        raise BadInput(f"{folder} has no figures.", f"`python -m pleinair.evals scale all --out {folder}`")
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def fill(text: str, figures: Figures) -> str:
    """Return a page with what is between each pair of marks replaced by the table of that name.

    Raise `BadInput` if a pair is missing. A table without figures becomes a line that says so.
    """
    for name, rows in TABLES.items():
        start, end = (mark.format(name) for mark in MARKS)
        if (text.count(start), text.count(end)) != (1, 1):
            raise BadInput(f"The page needs `{start}` and `{end}`, once each.")
        head, rest = text.split(start)
        lines = "\n".join(table(rows(figures))) or "Not measured."
        text = f"{head}{start}\n\n{lines}\n\n{end}{rest.split(end)[1]}"
    return text


def _machine(figures: Figures) -> Iterator[Row]:
    machine = figures.get("machine", {})
    for name in ("date", "processor", "cores", "memory_gb", "load", "system"):
        if name in machine:
            value = machine[name]
            text = f"{value:.2f}" if isinstance(value, float) else value
            yield {
                "": name.replace("memory_gb", "memory, GB").replace("load", "load at the start"),
                " ": text,
            }
    if machine:
        pairs = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        yield {"": "versions", " ": pairs}


def _ratios(figures: Figures) -> Iterator[Row]:
    for part in (_library_ratios, _search_ratios, _embedding_ratios, _step_ratios, _run_ratios):
        for subject, size, ours, reference, ratio in part(figures):
            yield {"subject": subject, "size": size, "ours": ours, "reference": reference, "ratio": ratio}


def _library_ratios(figures: Figures) -> Iterator[Line]:
    if "library" not in figures:
        return
    first, *_, last = rows = figures["library"]["sizes"]
    size, n = f"{last['images']:,} images", f"{figures['library']['repeat']} processes"
    for subject, field in (("opening library and index", "open_ms"), ("a first search", "first_search_ms")):
        yield (
            subject,
            f"{size}; least of {n}",
            f"{last[field]:.1f} ms",
            f"{rows[0]['images']:,} images: {first[field]:.1f} ms",
            _times(last[field] / first[field]),
        )
    for subject, field in (("opening: time", "open_ms"), ("opening: memory", "open_mb")):
        unit = field.rpartition("_")[2].replace("mb", "MiB")
        read = f"read_{field.rpartition('_')[2]}"
        yield (
            subject,
            f"{size}; least of {n}",
            f"{last[field]:.1f} {unit}",
            f"the vectors read into memory: {last[read]:,.0f} {unit}",
            _times(last[field] / last[read]),
        )


def _search_ratios(figures: Figures) -> Iterator[Line]:
    for row in figures.get("search", {}).get("sizes", ())[-1:]:
        for subject, batch in (("a query", 1), ("a batch of 32 queries", 32)):
            yield (
                f"{subject}, one core",
                f"{row['vectors']:,} vectors; R@10 {row['recall']:.4f}",
                f"{row[f'ours_{batch}_ms']:.2f} ms",
                f"FAISS's flat index: {row[f'flat_{batch}_ms']:.1f} ms",
                f"{row[f'ratio_{batch}']:.1f} × as fast",
            )


def _embedding_ratios(figures: Figures) -> Iterator[Line]:
    run = largest_embedding(figures)
    if run:
        ours, plain = run["seconds"]["build_index"], run["seconds"]["open_clip, float32"]
        for place, clock in enumerate(("clock", "processors")):
            yield (
                f"embedding, {clock}",
                f"{run['images']} JPEGs; best of {run['turns']}",
                f"{ours[place]:.2f} s",
                f"open_clip's loop, float32: {plain[place]:.2f} s",
                f"{plain[place] / ours[place]:.2f} × as fast",
            )


def _step_ratios(figures: Figures) -> Iterator[Line]:
    if "steps" not in figures:
        return
    steps = figures["steps"]
    for row in (most_steps(steps["steps"], side) for side in (64, 1024)):
        size = f"step {row['steps']:,}, {row['side']} pixels"
        ours, plain = row["ours"], row["plain"]
        for subject, field, factor, unit in (("bytes", "bytes", 1e-3, "KB"), ("time", "seconds", 1e3, "ms")):
            yield (
                f"a durable step, {subject}",
                size,
                f"{factor * ours[field]:.1f} {unit}",
                f"the whole state at each step: {factor * plain[field]:.1f} {unit}",
                _times(ours[field] / plain[field]),
            )
    ours, plain = (steps["memory"][name][-1] for name in ("ours", "plain"))
    yield (
        "memory that steps add, anonymous",
        f"{ours['steps']:,} steps",
        f"{ours['anonymous_mb']:.1f} MiB",
        f"the whole state at each step: {plain['anonymous_mb']:.1f} MiB",
        _times(ours["anonymous_mb"] / plain["anonymous_mb"]) if plain["anonymous_mb"] else "–",
    )
    if "turns" in steps:
        sizes = steps["turns"]["bytes"]
        tenth = max(len(sizes) // 10, 1)
        middle = len(sizes) // 2 - tenth // 2
        last, before = (sum(part) / tenth for part in (sizes[-tenth:], sizes[middle : middle + tenth]))
        yield (
            "a chat's turn, bytes",
            f"{len(sizes)} turns, one chat; the last tenth",
            f"{last / 1000:.0f} KB",
            f"the tenth in the middle: {before / 1000:.0f} KB",
            _times(last / before),
        )


def _run_ratios(figures: Figures) -> Iterator[Line]:
    for name, figure in figures.get("startup", {}).items():
        if isinstance(figure, dict):
            yield (
                f"a {name} run of the pocket engines",
                f"best of {figure['n']}; medians {figure['ratio']['median']:.2f} ×",
                f"{min(figure['seconds']):.2f} s",
                f"{figure['reference']}: {min(figure['reference_seconds']):.2f} s",
                _times(figure["ratio"]["best"]),
            )


def _formatted(rows: Iterable[Figures], columns: Mapping[str, str]) -> Iterator[Row]:
    """Yield a row of a table for each of `rows`; columns are format strings with its keys, by their heads."""
    for row in rows:
        yield {head: text.format_map(row) for head, text in columns.items()}


def _library(figures: Figures) -> Iterator[Row]:
    rows = figures.get("library", {}).get("sizes", ())
    yield from _formatted(
        ({**row, "bytes_each": sum(row["bytes"].values()) / row["images"]} for row in rows),
        {
            "images": "{images:,}",
            "opened, ms": "{open_ms:.1f}",
            "added, MiB": "{open_mb:.1f}",
            "first search, ms": "{first_search_ms:.0f}",
            "added, anonymous MiB": "{search_anonymous_mb:.1f}",
            "with mapped files": "{search_mb:.0f}",
            "vectors read, ms": "{read_ms:.0f}",
            "MiB": "{read_mb:.0f}",
            "written, s": "{write_s:.1f}",
            "peak, MiB": "{write_peak_mb:.0f}",
            "bytes an image": "{bytes_each:,.0f}",
        },
    )


def _search(figures: Figures) -> Iterator[Row]:
    yield from _formatted(
        figures.get("search", {}).get("sizes", ()),
        {
            "vectors": "{vectors:,}",
            "a query, flat, ms": "{flat_1_ms:.2f}",
            "ours, ms": "{ours_1_ms:.2f}",
            "×": "{ratio_1:.1f}",
            "32 queries, flat, ms": "{flat_32_ms:.1f}",
            "ours": "{ours_32_ms:.1f}",
            "× ": "{ratio_32:.1f}",
            "R@10": "{recall:.4f}",
            "R@10, the library's own vectors": "{recall_own:.4f}",
        },
    )


def _steps(figures: Figures) -> Iterator[Row]:
    rows = (
        row
        | {f"{side}_kb": row[side]["bytes"] / 1000 for side in ("ours", "plain")}
        | {f"{side}_ms": row[side]["seconds"] * 1000 for side in ("ours", "plain")}
        for row in figures.get("steps", {}).get("steps", ())
    )
    yield from _formatted(
        rows,
        {
            "step": "{steps:,}",
            "pixels": "{side}",
            "ours, KB": "{ours_kb:.1f}",
            "whole state, KB": "{plain_kb:.1f}",
            "ours, ms": "{ours_ms:.1f}",
            "whole state, ms": "{plain_ms:.1f}",
        },
    )


def _phases(figures: Figures) -> Iterator[Row]:
    warm = figures.get("startup", {}).get("warm")
    if warm:
        whole, reference = median(warm["seconds"]), median(warm["reference_seconds"])
        for name, seconds in warm["phases"].items():
            yield {
                "phase": name,
                "ms": f"{1000 * seconds:.1f}",
                "share of the run": f"{100 * seconds / whole:.1f} %",
                "× denoising": f"{seconds / reference:.3f}",
            }


def _arithmetic(figures: Figures) -> Iterator[Row]:
    for each in project(figures):
        yield {
            "cost": each.subject,
            "an image more": amount(each.each, each.unit),
            "measured from": each.source,
            f"× {MANY:,}": amount(each.total, each.unit),
        }


def _limits(figures: Figures) -> Iterator[Row]:
    for each in project(figures):
        if each.subject in BEARABLE and each.each > 0:
            bearable = BEARABLE[each.subject]
            yield {
                "cost": each.subject,
                "bearable": amount(bearable, each.unit),
                "÷ an image more": amount(each.each, each.unit),
                "images, about": f"{float(f'{bearable / each.each:.2g}'):,.0f}",
            }


def _times(ratio: float) -> str:
    """Format a ratio with three digits."""
    return f"{ratio:.3g} ×"


MARKS = "<!-- {} -->", "<!-- end of {} -->"
TABLES: Mapping[str, Callable[[Figures], Iterator[Row]]] = {
    "machine": _machine,
    "ratios": _ratios,
    "library": _library,
    "search": _search,
    "steps": _steps,
    "phases": _phases,
    "arithmetic": _arithmetic,
    "limits": _limits,
}
EMPTY = "".join(
    f"## {name.capitalize()}\n\n{MARKS[0].format(name)}\n{MARKS[1].format(name)}\n\n" for name in TABLES
)
