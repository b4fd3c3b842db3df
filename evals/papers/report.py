"""Claims of the three papers and what the measurements say of them: figures, page and plots."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pleinair.evals.metrics import estimate, mean
from pleinair.evals.report import Figures, decimal, percent, plot_bars, share_rows, table

Record = dict[str, Any]  # a line of the file: setup, section, column, seed, tier, case, measures, seconds
SHARES = ("right", "R@1", "coverage")  # beginnings of the measures in 0..1 that have intervals
AT_AN_END = "cannot tell: both are at the ceiling or the floor"
MARGIN = 0.1  # two shares are about equal if the interval of their difference is within it
COLOURS = ("#5b8e9c", "#c8553d", "#b8b2a6", "#7a9e5e", "#8d6a9f")

SECTIONS_FILE = Path(__file__).parents[1] / "data" / "claims.toml"
SECTIONS: dict[str, Figures] = tomllib.loads(SECTIONS_FILE.read_text("utf-8"))  # title, note, claims


class Claim(NamedTuple):
    """Claim that one column is better than another ("≥"), or about as good ("≈")."""

    text: str  # "captions ≥ concepts"
    measure: str
    tier: str = "all"

    @property
    def sides(self) -> tuple[str, str, str]:
        """Return the two columns with the sign between them."""
        better, sign, worse = re.split(" ([≥≈]) ", self.text)
        return better, sign, worse


def summarise(section: str, records: Sequence[Record]) -> Figures:
    """Compute every figure of a section; shares are in 0..1, intervals cover 95 %."""
    frame = measurements(records)
    return {
        "measures": scores(frame),
        "claims": judge([Claim(*claim) for claim in SECTIONS[section]["claims"]], frame),
        "records": len(records),
        "seconds": round(sum(record["seconds"] for record in records), 1),
    }


def measurements(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row for each measure of each record.

    The column `unit` is what counts as one independent value of a share: the record's `name` if it has one,
    otherwise its case within its seed.
    """
    return pd.DataFrame(
        {
            **record,
            "measure": measure,
            "value": float(value),
            "unit": record.get("name", (record["seed"], record["case"])),
        }
        for record in records
        for measure, value in record["measures"].items()
    )


def scores(frame: pd.DataFrame) -> Figures:
    """Return the score of every measure, tier and column; if there are several tiers, "all" comes last."""
    result: Figures = {}
    for measure, rows in frame.groupby("measure", sort=False):
        tiers = list(rows["tier"].unique())
        result[measure] = {
            tier: {
                column: _score(cells, measure)
                for column, cells in _at(rows, tier).groupby("column", sort=False)
            }
            for tier in ([*tiers, "all"] if len(tiers) > 1 else ["all"])
        }
    return result


def _score(rows: pd.DataFrame, measure: str) -> Figures:
    """Return the mean of a measure with its interval if it is a share, and the mean in each seed."""
    if not measure.startswith(SHARES):
        score: Figures = {"mean": mean(rows["value"]), "ci": None, "n": len(rows)}
    else:
        score = estimate(_by_unit(rows), 0, 1)
    return score | {"by_seed": [mean(part["value"]) for _, part in rows.groupby("seed")]}


def _by_unit(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby("unit", sort=False)["value"].mean()


def _at(rows: pd.DataFrame, tier: str) -> pd.DataFrame:
    """Return the rows of a tier; "all" is every one."""
    return rows if tier == "all" else rows[rows["tier"] == tier]


def judge(claims: Sequence[Claim], frame: pd.DataFrame) -> list[Figures]:
    """Return for each claim of which both columns were measured the gain on the same cases and a verdict."""
    result = []
    for claim in claims:
        better, sign, worse = claim.sides
        rows = _at(frame[frame["measure"] == claim.measure], claim.tier)
        ours, theirs = (rows[rows["column"] == name].set_index(["seed", "case"]) for name in (better, worse))
        if len(ours) and len(theirs):
            gains = ours.assign(value=ours["value"] - theirs["value"]).dropna(subset="value")
            gain = estimate(_by_unit(gains), -1, 1, name="gain")
            differ = sign == "≈" and bool(gains["value"].any())  # then there was room to differ
            at_an_end = not differ and _at_an_end(ours, theirs)
            about = {"claim": claim.text, "measure": claim.measure, "tier": claim.tier}
            result.append(about | gain | {"verdict": verdict(sign, gain["ci"], at_an_end)})
    return result


def _at_an_end(ours: pd.DataFrame, theirs: pd.DataFrame) -> bool:
    """Return whether in every tier both shares are so near one end that they count as equal."""
    units = [rows.groupby(["tier", "unit"])["value"].mean() for rows in (ours, theirs)]
    means = [values.groupby("tier").mean() for values in units]
    pairs = pd.DataFrame(means).dropna(axis=1)
    return bool(((pairs.min() >= 1 - MARGIN) | (pairs.max() <= MARGIN)).all())


def verdict(sign: str, ci: Sequence[float] | None, at_an_end: bool = False) -> str:
    """Return what the interval of a gain shows; no difference is neither better nor worse.

    That two columns are alike `at_an_end` shows nothing: there was no room for a gain, or no case in which
    they differed.
    """
    if ci is None:
        return "not measured"
    low, high = ci
    if at_an_end and low <= 0 <= high:
        return AT_AN_END
    if sign == "≈":
        if -MARGIN <= low and high <= MARGIN:
            return "reproduced"
        return f"not reproduced: {'the interval is too wide' if low <= 0 <= high else 'they differ'}"
    if low > 0:
        return "reproduced"
    return "not reproduced: reversed" if high < 0 else "not reproduced: no difference shown"


def write_markdown(figures: Figures) -> str:
    """Return the page: every figure with its n and interval, and every claim with its verdict."""
    about = figures["about"]
    lines = [
        "# What the three papers claim, in the miniature world\n",
        f"```sh\n{about['command']}\n```\n",
        f"{about['seeds']} seeds, each with prompts, noise and libraries of its own. An image is right if",
        "an independent classifier finds every species of the prompt in it. Brackets are 95 % bootstrap",
        "intervals over prompts and seeds; repeated species are treated as independent. Gains are on",
        "the same cases. A claim is reproduced if the gain's interval is above 0, and for ≈ if it is",
        f"within ± {100 * MARGIN:.0f} points. If in every tier both columns are within"
        f" {100 * MARGIN:.0f} points of the same end,",
        "a gain that is not shown cannot be judged, for want of room; nor ≈, unless some case differs.\n",
    ]
    for name, about in SECTIONS.items():
        if name in figures:
            lines += [f"## {about['title']}\n", about["note"], "", *section(figures[name])]
    return "\n".join(lines)


def section(figures: Figures) -> Iterator[str]:
    """Yield a section's tables: shares by tier, other means over all tiers, claims."""
    shares = {measure: tiers for measure, tiers in figures["measures"].items() if _has_intervals(tiers)}
    for measure, tiers in shares.items():
        yield from table(share_rows(measure, tiers))
        yield ""
    for measure, tiers in figures["measures"].items():
        if measure not in shares:
            means = (f"{name} {decimal(score['mean'])}" for name, score in tiers["all"].items())
            yield f"{measure}, on average: {', '.join(means)}.\n"
    yield from table(
        {
            "claim": claim["claim"],
            "measure": claim["measure"],
            "tier": claim["tier"],
            "gain": percent(claim["gain"], claim["ci"]),
            "n": claim["n"],
            "": claim["verdict"],
        }
        for claim in figures["claims"]
    )
    yield ""


def _has_intervals(tiers: Figures) -> bool:
    return any(score["ci"] for score in tiers["all"].values())


def plot(figures: Figures, folder: Path) -> list[Path]:
    """Write `papers-SECTION.png` for every section of the figures; return their paths."""
    about = figures["about"]
    caption = f"{about['prompts']} prompts, {about['seeds']} seeds, 95 % intervals. Pocket models."
    names = [name for name in SECTIONS if name in figures]
    return [_plot(name, figures[name]["measures"], caption, folder / f"papers-{name}.png") for name in names]


def _plot(name: str, measures: Figures, caption: str, path: Path) -> Path:
    from matplotlib.figure import Figure

    shares = {measure: tiers for measure, tiers in measures.items() if _has_intervals(tiers)}
    figure = Figure(figsize=(5.2 * max(len(shares), 1), 4), layout="constrained")
    figure.suptitle(SECTIONS[name]["title"], fontsize=11)
    for number, (measure, tiers) in enumerate(shares.items(), 1):
        axes = figure.add_subplot(1, len(shares), number)
        sizes = {tier: max(score["n"] for score in cells.values()) for tier, cells in tiers.items()}
        plot_bars(
            axes, {f"{tier}, n = {sizes[tier]}": cells for tier, cells in tiers.items()}, "mean", COLOURS, 3
        )
        axes.set_ylabel(measure)
        axes.tick_params("x", labelrotation=20, labelsize=8)
    figure.supxlabel(caption, fontsize=8)
    figure.savefig(path, dpi=130)
    return path
