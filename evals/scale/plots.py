"""Plots of the benchmarks' figures as SVG: cost against size, logarithmic, ours beside the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import ceil, floor, inf, log10
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pleinair.evals.scale.arithmetic import MANY, project

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

Figures = Mapping[str, Any]  # JSON of the benchmarks, by the name of their file
Points = tuple[Sequence[float], Sequence[float]]

OURS, OTHER, THIRD = "#c8553d", "#3f7383", "#b5852b"
HEAD = 1000  # bytes; a file of vectors without codes has no more of them
REFERENCE, INK = "#8c867b", "#33302b"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "pleinair",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e4e0d8",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def plot_all(figures: Figures, folder: Path) -> Iterator[Path]:
    """Write a file for each plot whose figures are there, and yield its path."""
    import matplotlib
    from matplotlib.figure import Figure as Sheet

    folder.mkdir(parents=True, exist_ok=True)
    for name, (needed, panels, draw) in PLOTS.items():
        if not any(key == needed or key.startswith(f"{needed}-") for key in figures):
            continue
        with matplotlib.rc_context(STYLE):
            sheet = Sheet(figsize=(1.2 + 3.5 * panels, 3.4), layout="constrained")
            draw(sheet, figures)
            path = folder / f"{name}.svg"
            sheet.savefig(path, metadata={"Date": None, "Creator": None})
        yield path


def _panels(sheet: Sheet, titles: Mapping[str, str], size: str) -> list[Axes]:
    """Return axes with logarithmic scales, by their titles and units."""
    panels = list(sheet.subplots(1, len(titles), squeeze=False)[0])
    for axes, (title, unit) in zip(panels, titles.items(), strict=True):
        axes.set(title=title, xlabel=size, ylabel=unit, xscale="log", yscale="log")
        axes.minorticks_off()
    return panels


def _line(axes: Axes, points: Points, label: str, colour: str, style: str = "-") -> None:
    pairs = [(size, cost) for size, cost in zip(*points, strict=True) if cost > 0]  # as logarithms need
    marker = "o" if len(pairs) < 20 else ""
    sizes, costs = [size for size, _ in pairs], [cost for _, cost in pairs]
    axes.plot(sizes, costs, style, marker=marker, color=colour, label=label)


def _column(rows: Sequence[Figures], field: str, size: str = "images") -> Points:
    return [row[size] for row in rows], [row[field] for row in rows]


def _legends(panels: Sequence[Axes]) -> None:
    """Place each legend under its axes, where it covers no line, and end the scales at powers of ten."""
    for axes in panels:
        low, high = axes.dataLim.intervaly
        if 0 < low <= high < inf:  # else nothing was drawn
            axes.set_ylim(10 ** floor(log10(low)), 10 ** max(ceil(log10(high)), floor(log10(low)) + 1))
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), handlelength=1.6, borderaxespad=0)


def _plot_library(sheet: Sheet, figures: Figures) -> None:
    rows = figures["library"]["sizes"]
    titles = {"Time to open": "ms", "Memory added": "MiB", "Writing the index": "s, MiB"}
    time, memory, writing = panels = _panels(sheet, titles, "images")
    _line(time, _column(rows, "open_ms"), "library and index opened", OURS)
    _line(time, _column(rows, "first_search_ms"), "first hybrid search", THIRD)
    _line(time, _column(rows, "read_ms"), "reference: vectors read into memory", REFERENCE, "--")
    _line(memory, _column(rows, "open_mb"), "after opening", OURS)
    _line(memory, _column(rows, "search_anonymous_mb"), "after the search, anonymous", THIRD)
    _line(memory, _column(rows, "search_mb"), "after the search, with mapped files", OTHER)
    _line(memory, _column(rows, "read_mb"), "reference: vectors read into memory", REFERENCE, "--")
    _line(writing, _column(rows, "write_s"), "seconds, without embedding", OURS)
    _line(writing, _column(rows, "write_peak_mb"), "peak memory of the process, MiB", OTHER)
    _legends(panels)


def _plot_search(sheet: Sheet, figures: Figures) -> None:
    rows = figures["search"]["sizes"]
    titles = {"One query, one core": "ms", "A batch of 32, one core": "ms"}
    panels = _panels(sheet, titles, "vectors of 512 numbers")
    for axes, batch in zip(panels, (1, 32), strict=True):
        _line(axes, _column(rows, f"ours_{batch}_ms", "vectors"), "ours", OURS)
        _line(
            axes,
            _column(rows, f"flat_{batch}_ms", "vectors"),
            "reference: FAISS's flat index",
            REFERENCE,
            "--",
        )
    _legends(panels)


def _plot_embedding(sheet: Sheet, figures: Figures) -> None:
    runs = sorted(
        (run for name, run in figures.items() if name.startswith("embedding-")), key=lambda run: run["images"]
    )
    titles = {"Embedding, on the clock": "s", "Embedding, all processors": "s"}
    panels = _panels(sheet, titles, "JPEGs of a megapixel, ViT-B/32")
    ways = {
        "build_index": ("build_index", OURS, "-"),
        "no isolation": ("decoding in its own process", THIRD, "-"),
        "open_clip, float32": ("reference: open_clip's loop, float32", REFERENCE, "--"),
    }
    for place, axes in enumerate(panels):
        for way, (label, colour, style) in ways.items():
            seconds = [run["seconds"][way][place] for run in runs]
            _line(axes, ([run["images"] for run in runs], seconds), label, colour, style)
    _legends(panels)


def _plot_steps(sheet: Sheet, figures: Figures) -> None:
    steps = figures["steps"]
    titles = {
        "Bytes of a durable step": "KB",
        "Time of a durable step": "ms",
        "Anonymous memory added": "MiB",
    }
    size, time, memory = panels = _panels(sheet, titles, "number of the step")
    for axes, field, factor in ((size, "bytes", 1e-3), (time, "seconds", 1e3)):
        for side, colour, style in ((64, OURS, "-"), (1024, THIRD, "-")):
            rows = [row for row in steps["steps"] if row["side"] == side]
            counts = [row["steps"] for row in rows]
            _line(
                axes,
                (counts, [factor * row["ours"][field] for row in rows]),
                f"ours, {side} pixels",
                colour,
                style,
            )
        rows = [row for row in steps["steps"] if row["side"] == 64]
        points = [row["steps"] for row in rows], [factor * row["plain"][field] for row in rows]
        _line(axes, points, "reference: whole state at each step", REFERENCE, "--")
    for name, label, colour, style in (
        ("ours", "ours, 64 pixels", OURS, "-"),
        ("plain", "reference: whole state at each step", REFERENCE, "--"),
    ):
        rows = [row for row in steps["memory"][name] if row["steps"] > 1]
        _line(memory, _column(rows, "anonymous_mb", "steps"), label, colour, style)
    memory.set_xlabel("steps")
    _legends(panels)


def _plot_turns(sheet: Sheet, figures: Figures) -> None:
    turns = figures["steps"].get("turns", {"bytes": [1], "seconds": [1]})
    numbers = list(range(1, len(turns["bytes"]) + 1))
    titles = {"All turns of a chat so far": "MB", "All turns so far": "s"}
    panels = _panels(sheet, titles, "turns")
    for axes, field, factor in zip(panels, ("bytes", "seconds"), (1e-6, 1.0), strict=True):
        total = [factor * value for value in accumulate(turns[field])]
        # from the median turn, so that a slow first one does not move the line
        each = factor * median(turns[field])
        _line(axes, (numbers, total), "ours", OURS)
        _line(
            axes,
            (numbers, [each * number for number in numbers]),
            "linear: turns × the median turn",
            REFERENCE,
            "--",
        )
        _line(axes, (numbers, [each * number**2 for number in numbers]), "quadratic", THIRD, ":")
    _legends(panels)


def _plot_run(sheet: Sheet, figures: Figures) -> None:
    warm = figures["startup"]["warm"]
    reference = median(warm["reference_seconds"])
    phases = {name: seconds / reference for name, seconds in warm["phases"].items()}
    names = list(phases)[::-1]
    axes = sheet.add_subplot()
    colours = [REFERENCE if name.startswith("(") else OURS for name in names]
    bars = axes.barh(names, [phases[name] for name in names], color=colours, height=0.7)
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set(
        title="A warm run of the pocket engines", xlabel="× its denoising steps; grey: within the phases"
    )
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)


def _plot_projection(sheet: Sheet, figures: Figures) -> None:
    rows = figures["library"]["sizes"]
    disk, time = panels = _panels(
        sheet, {"The index on disk": "GB", "Time of a query, one core": "s"}, "images"
    )
    each = {item.subject: item.each for item in project(figures)}
    last = rows[-1]["images"]
    for kind, colour in zip(rows[-1]["bytes"], (REFERENCE, OURS, OTHER, THIRD), strict=False):
        stored = [row for row in rows if row["bytes"][kind] > HEAD]
        if stored:
            values = [row["bytes"][kind] / 1e9 for row in stored]
            _line(disk, ([row["images"] for row in stored], values), kind, colour)
            _extend(disk, last, values[-1], each[f"disk: {kind}"] / 1e9, colour)
    found = figures.get("search", {}).get("sizes", ())
    for field, queries, label, colour in (
        ("flat_1_ms", 1, "FAISS's flat index", REFERENCE),
        ("ours_1_ms", 1, "ours, alone", OURS),
        ("ours_32_ms", 32, "ours, in a batch of 32", THIRD),
    ):
        if found:
            counts, times = _column(found, field, "vectors")
            values = [milliseconds / queries / 1000 for milliseconds in times]
            _line(time, (counts, values), label, colour)
            _extend(time, counts[-1], values[-1], values[-1] / counts[-1], colour)
    _legends(panels)


def _extend(axes: Axes, size: float, value: float, each: float, colour: str) -> None:
    """Draw what follows from the last measurement by what an image more costs."""
    sizes = [size * (MANY / size) ** (step / 20) for step in range(21)]
    axes.plot(sizes, [value + each * (more - size) for more in sizes], ":", color=colour, linewidth=1.4)


def most_steps(rows: Sequence[Figures], side: int) -> Figures:
    """Return the row of the most steps with images of a side."""
    return max((row for row in rows if row["side"] == side), key=lambda row: row["steps"])


# by the name of the file: the figures that it needs, the panels, the function
PLOTS: Mapping[str, tuple[str, int, Callable[[Sheet, Figures], None]]] = {
    "library": ("library", 3, _plot_library),
    "search": ("search", 2, _plot_search),
    "embedding": ("embedding", 2, _plot_embedding),
    "steps": ("steps", 3, _plot_steps),
    "turns": ("steps", 2, _plot_turns),
    "run": ("startup", 2, _plot_run),
    "projection": ("library", 2, _plot_projection),
}
