"""Report of a command: a Markdown table for each table of the paper, plots, and all figures as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from pleinair.evals.metrics import FEW_GROUPS
from pleinair.evals.report import COLOURS, Figures, table
from pleinair.evals.reproduce.plan import Sheet
from pleinair.evals.reproduce.results import LEFT_OUT, Cell, Failures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALE = "#c5d1b0"  # of `COLOURS`, for areas only


@dataclass(frozen=True, slots=True)
class Report:
    """What a command measured."""

    paper: str
    command: str
    model: str  # the profile's generator
    engines: str  # the others, in words
    generator: str  # the paper's whose figures are beside
    is_published_model: bool
    limits: tuple[str, ...]  # what was not as in the paper: classes, images, pools
    arms: Mapping[str, Mapping[str, Any]]  # the settings that each differs in
    tables: Sequence[tuple[Sheet, Sequence[Cell]]]
    failures: Mapping[str, Failures]  # by arm
    scorers: Sequence[str]
    cost: Mapping[str, float]
    versions: Mapping[str, str]
    seed: int = 0
    examples: Sequence[Mapping[str, Any]] = field(default_factory=tuple)  # of the page of images

    def figures(self) -> Figures:
        """Return all figures as JSON."""
        facts = asdict(self)
        del facts["tables"], facts["examples"]
        return facts | {
            "tables": {
                each.id: [asdict(cell) | {"difference": cell.difference} for cell in cells]
                for each, cells in self.tables
            }
        }


def write_markdown(report: Report) -> str:
    """Return the page: what was measured, then each table beside the paper's."""
    lines = [*_opening(report)]
    for each, cells in report.tables:
        lines += ["", *_table(each, cells, report)]
    if report.arms:
        lines += ["", *_settings(report)]
    return "\n".join(lines) + "\n"


def warning(report: Report) -> str:
    """Return what keeps the figures from being compared with the paper's, "" for nothing."""
    reasons = []
    if report.arms and not report.is_published_model:
        reasons.append(f"the images are by {report.model}, which the paper does not use")
    reasons += report.limits
    if not reasons:
        return ""
    return f"**These figures are not comparable with the published ones**: {'; '.join(reasons)}."


def _opening(report: Report) -> Iterator[str]:
    yield f"# Tables of {report.paper} made anew\n"
    if text := warning(report):
        yield f"{text}\n"
    yield "Ours are means with 95 % intervals by a bootstrap over groups (classes, species or artists); the"
    yield "paper's ± are standard errors. Not all of its scorers are named, so values may differ."
    if report.arms:
        yield f"Published figures of images are of {report.generator}."
    yield f"Seed {report.seed}.\n"
    yield f"```sh\n{report.command}\n```\n"
    generator = f"Generator {report.model}" if report.arms else "No generator"
    yield f"{generator}, {report.engines}. Scores: {'; '.join(report.scorers) or 'none'}.\n"
    yield f"Cost of all runs, in each of which a shared draft counts: {_cost(report.cost)}.\n"
    yield ", ".join(f"{name} {number}" for name, number in report.versions.items())
    for arm, each in report.failures.items():
        yield (
            f"\n{arm}: {each.count} of {each.of} prompts gave no image and are in no figure, most often: "
            f"{shorten(each.reason, 200, placeholder=' …')}"
        )


def _cost(cost: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.6g}" for name, value in cost.items())


def _table(each: Sheet, cells: Sequence[Cell], report: Report) -> Iterator[str]:
    yield f"## {each.name}: {each.title}\n"
    printed = each.printed
    notes = [*(printed.notes if printed else ()), *_few(cells), *_not_measured(cells)]
    if each.is_generated and printed and not any(cell.published for cell in cells):
        notes.append(f"The paper has no figures of {report.generator} in this table.")
    yield from (f"- {note}" for note in notes)
    rows = [*_rows(cells, is_comparable=report.is_published_model or not each.is_generated)]
    yield from [""] * bool(notes and rows)
    yield from table(iter(rows)) if rows else ()
    others = [
        row
        for row in (printed.rows if printed else ())
        if row not in {line.printed_row(report.generator) for line in each.lines}
    ]
    if printed and others:
        yield "\nPublished rows of other models or settings, not run:\n"
        yield from table(
            {"row": f"{row} (no target)" if row in printed.not_targets else row}
            | {column: printed.figure(row, column) or "–" for column in each.columns}
            for row in others
        )


def _few(cells: Sequence[Cell]) -> list[str]:
    counts = {cell.data_set: cell.groups for cell in cells if 0 < cell.groups < FEW_GROUPS}
    return [
        f"{', '.join(name for name in counts if counts[name] == count)}: {count} groups, so that intervals "
        "are too narrow."
        for count in dict.fromkeys(counts.values())
    ]


def _not_measured(cells: Sequence[Cell]) -> list[str]:
    """Return why data sets, or measures of all rows, have no figure."""
    left_out = list(dict.fromkeys(cell.data_set for cell in cells if cell.is_left_out))
    empty = _empty(cells)
    whys = {(cell.measure, cell.why): "" for cell in cells if cell.measure in empty and not cell.is_left_out}
    return [f"Not run, {LEFT_OUT}: {', '.join(left_out)}."] * bool(left_out) + [
        f"{measure} was not measured: {why}." for measure, why in whys
    ]


def _empty(cells: Sequence[Cell]) -> set[str]:
    """Return the measures without any figure."""
    return {cell.measure for cell in cells} - {cell.measure for cell in cells if cell.mean is not None}


def _rows(cells: Sequence[Cell], is_comparable: bool) -> Iterator[dict[str, object]]:
    """Yield a row a cell, those that are compared below each other.

    A difference of images is shown only for the paper's own generator.
    """
    columns = list(dict.fromkeys((cell.data_set, cell.measure) for cell in cells))
    empty = _empty(cells)
    for cell in sorted(cells, key=lambda cell: columns.index((cell.data_set, cell.measure))):
        if cell.is_left_out or cell.measure in empty:
            continue
        difference = cell.difference if is_comparable else None
        yield {
            "data set": cell.data_set,
            "measure": cell.measure,
            "row": cell.row,
            "ours": f"not run: {cell.why}" if cell.mean is None else number(cell.mean),
            "95 %": "–" if cell.interval is None else " to ".join(map(number, cell.interval)),
            "n (groups)": f"{cell.n} ({cell.groups})" if cell.groups else cell.n or "–",
            "published": cell.published or "–",
            "difference": "–" if difference is None else number(difference, sign=True),
        }


def number(value: float, sign: bool = False) -> str:
    """Return a value with three digits behind the point, of large ones with two."""
    digits = 2 if abs(value) >= 10 else 3
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _settings(report: Report) -> Iterator[str]:
    yield "## Settings of the rows\n"
    yield "What each row changes in the profile's settings; its pool is a folder of the command's own.\n"
    yield from table(
        {
            "images of": arm,
            "settings": ", ".join(f"`{key} = {value}`" for key, value in changes.items()) or "–",
        }
        for arm, changes in report.arms.items()
    )


def plot(report: Report, folder: Path) -> list[Path]:
    """Write a plot of each table that has a figure, by rows or by sizes of the pool; return their paths."""
    from matplotlib.figure import Figure

    paths = []
    for each, cells in report.tables:
        measured = [cell for cell in cells if cell.mean is not None]
        if not measured:
            continue
        measures = list(dict.fromkeys(cell.measure for cell in measured))
        width = max(6, 0.6 * len(measured) / len(measures) + 3)
        figure = Figure(figsize=(width, 1 + 2.2 * len(measures)), layout="constrained")
        figure.suptitle(f"{report.paper}, {each.name}", fontsize=11)
        axes = figure.subplots(len(measures), 1, squeeze=False)[:, 0]
        draw = (
            _curve
            if each.id == "imagerag/16"
            else partial(_points, list(dict.fromkeys(cell.row for cell in measured)))
        )
        for place, measure in zip(axes, measures, strict=True):
            draw(place, [cell for cell in measured if cell.measure == measure])
            place.set_ylabel(measure)
            place.spines[["top", "right"]].set_visible(False)
        pairs = [zip(*place.get_legend_handles_labels(), strict=True) for place in axes]
        by_label = {label: handle for of_axes in pairs for handle, label in of_axes}
        axes[0].legend(
            by_label.values(),
            by_label,
            frameon=False,
            fontsize=8,
            ncols=3,
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
        )
        figure.supxlabel(_caption(each, measured, report), fontsize=8)
        paths.append(folder / f"{each.id.replace('/', '-')}.png")
        figure.savefig(paths[-1], dpi=130)
    return paths


def _caption(each: Sheet, cells: Sequence[Cell], report: Report) -> str:
    parts = ["● ours" + " with 95 % interval" * any(cell.interval for cell in cells)]
    if each.is_generated:
        parts[0] += f", by {report.model}"
    if any(cell.published for cell in cells):
        parts.append(f"◇ published{f', {report.generator}' if each.is_generated else ''}")
    return "; ".join(parts)


def _points(rows: Sequence[str], axes: Axes, cells: Sequence[Cell]) -> None:
    """Plot a point a row with its interval, and the published figure beside it, in groups of data sets.

    A row has the same place and colour in all plots of a table.
    """
    sets, width = list(dict.fromkeys(cell.data_set for cell in cells)), 0.8 / len(rows)
    for place, row in enumerate(rows):
        of_row = [cell for cell in cells if cell.row == row]
        if not of_row:
            continue
        spots = [sets.index(cell.data_set) + width * (place - (len(rows) - 1) / 2) for cell in of_row]
        colour = _colour(place)
        means = [cell.mean or 0.0 for cell in of_row]
        axes.errorbar(spots, means, _errors(of_row), fmt="o", color=colour, label=row, capsize=2)
        marks = [
            (spot + width / 4, cell.published.value)
            for spot, cell in zip(spots, of_row, strict=True)
            if cell.published
        ]
        if marks:
            axes.scatter(*zip(*marks, strict=True), marker="D", facecolor="none", edgecolor=colour, zorder=3)
    axes.set_xticks(range(len(sets)), sets)
    axes.set_xlim(-0.5, len(sets) - 0.5)
    for edge in range(1, len(sets)):
        axes.axvline(edge - 0.5, color="#ddd", linewidth=0.8)


def _colour(place: int) -> str:
    """Return a row's colour, of those that are dark enough for points and lines."""
    colours = [colour for colour in COLOURS if colour != PALE] + ["#444444", "#8a6fa8"]
    return colours[place % len(colours)]


def _curve(axes: Axes, cells: Sequence[Cell]) -> None:
    """Plot a line a data set over the sizes of the pool; the base model is a dotted line."""
    for place, name in enumerate(dict.fromkeys(cell.data_set for cell in cells)):
        of_set = [cell for cell in cells if cell.data_set == name and cell.mean is not None]
        colour = _colour(place + 1)
        sized = [cell for cell in of_set if cell.pool_size]
        sizes = [cell.pool_size for cell in sized]
        axes.errorbar(
            sizes,
            [cell.mean or 0 for cell in sized],
            _errors(sized),
            color=colour,
            marker="o",
            capsize=2,
            label=name,
        )
        for cell in of_set:
            if cell not in sized and cell.mean is not None:
                axes.axhline(cell.mean, color=colour, linestyle=":", label=f"{name}, {cell.row}")
    sizes = sorted({cell.pool_size for cell in cells if cell.pool_size})
    axes.set(xscale="log", xlabel="images in the pool")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()


def _errors(cells: Sequence[Cell]) -> list[list[float]]:
    """Return how far the intervals reach below and above the means."""
    pairs = [(cell.mean or 0.0, cell.interval or (cell.mean or 0.0,) * 2) for cell in cells]
    return [
        [max(mean - ends[0], 0) for mean, ends in pairs],
        [max(ends[1] - mean, 0) for mean, ends in pairs],
    ]
