"""Sum RealRAG's comparison up: figures with intervals, and the order that the paper claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pleinair.evals import metrics
from pleinair.evals.report import Figures, decimal, percent, row, table_head, versions

TIERS = ("known", "rare", "novel", "all")
METHODS = ("zero", "normal", "reflective")
COLUMNS = ("base", *METHODS, "self_contrast")
PAIRS = (("normal", "zero"), ("reflective", "normal"), ("reflective", "zero"))
Record = Mapping[str, Any]


def summarise(found: Sequence[Record], drawn: Sequence[Record], about: Figures) -> Figures:
    """Compute every figure; shares are in 0..1, intervals cover 95 %, over species."""
    last = max((one["epoch"] for one in found), default=0)
    final = [one for one in found if one["epoch"] in (0, last)]
    return {
        "recall": {
            where: _table(_at(final, library=where), "method", METHODS) for where in _libraries(found)
        },
        "recall_gains": {where: _gains(_at(final, library=where), "method") for where in _libraries(found)},
        "curve": {where: dict(_curve(_at(found, library=where))) for where in _libraries(found)},
        "accuracy": _table(drawn, "column", COLUMNS),
        "accuracy_gains": _gains(drawn, "column"),
        "similarity": {column: _likeness(_at(drawn, column=column)) for column in COLUMNS},
        "versions": versions(),
        **about,
    }


def _likeness(drawn: Sequence[Record]) -> Figures:
    """Average every similarity of the pictures."""
    keys = drawn[0]["likeness"] if drawn else ()
    return {key: metrics.mean([one["likeness"][key] for one in drawn]) for key in keys}


def _libraries(found: Sequence[Record]) -> list[str]:
    """List the libraries that were searched."""
    return sorted({one["library"] for one in found}, reverse=True)


def _at(records: Sequence[Record], **wanted: object) -> list[Record]:
    """Keep the records with these values; the tier "all" is every one."""
    wanted = {key: value for key, value in wanted.items() if value != "all"}
    return [one for one in records if all(one[key] == value for key, value in wanted.items())]


def _table(records: Sequence[Record], key: str, columns: Sequence[str]) -> Figures:
    """Give each tier and column its share of right records."""
    return {
        tier: {column: share(_at(records, tier=tier, **{key: column})) for column in columns}
        for tier in TIERS
    }


def share(records: Sequence[Record]) -> Figures:
    """Give the share of right records, the mean over species, with its interval over species."""
    hits = _by_species(records, [float(one["right"]) for one in records])
    return {"share": metrics.mean(hits), "ci": metrics.interval(hits, 0, 1), "n": len(hits)}


def _by_species(records: Sequence[Record], values: Sequence[float]) -> list[float]:
    """Average the values of each species, as its seeds, wordings and pictures depend on each other.

    A record that names no species stands alone.
    """
    groups: dict[object, list[float]] = {}
    for number, (one, value) in enumerate(zip(records, values, strict=True)):
        groups.setdefault(one.get("name", number), []).append(value)
    return [sum(group) / len(group) for group in groups.values()]


def _gains(records: Sequence[Record], key: str) -> Figures:
    """Give for each tier how much more often one method is right than another on the same questions."""
    return {tier: dict(_tier_gains(_at(records, tier=tier), key)) for tier in TIERS}


def _tier_gains(records: Sequence[Record], key: str) -> Iterator[tuple[str, Figures]]:
    """Pair the records of two methods, which come in the same order."""
    for better, worse in PAIRS:
        ours, theirs = _at(records, **{key: better}), _at(records, **{key: worse})
        pairs = zip(ours, theirs, strict=True)
        gained = _by_species(ours, [float(one["right"]) - float(two["right"]) for one, two in pairs])
        yield (
            f"{better} - {worse}",
            {"gain": metrics.mean(gained), "ci": metrics.interval(gained, -1, 1), "n": len(gained)},
        )


def _curve(found: Sequence[Record]) -> Iterator[tuple[str, Figures]]:
    """Give the share of right look-ups after every checkpoint, over all tiers (the paper's figure 7)."""
    for method in METHODS:
        epochs = sorted({one["epoch"] for one in _at(found, method=method)})
        yield (
            method,
            {
                str(epoch): metrics.accuracy([one["right"] for one in _at(found, method=method, epoch=epoch)])
                for epoch in epochs
            },
        )


def verdict(gained: Figures) -> str:
    """Say what an interval of a gain shows."""
    if gained["ci"] is None:
        return "not measured"
    low, high = gained["ci"]
    return "holds" if low > 0 else "is reversed" if high < 0 else "is not shown"


def write_markdown(figures: Figures) -> str:
    """Write the page: what was measured, each figure with its interval, and what does not reproduce."""
    return "\n".join((*_opening(figures), *_recalls(figures), *_accuracies(figures), *_order(figures)))


def _opening(figures: Figures) -> Iterator[str]:
    """Say what was measured and how."""
    yield "# RealRAG's retrievers in the miniature world\n"
    yield f"```sh\n{figures['command']}\n```\n"
    yield f"{figures['seeds']} seeds, each with a library, a training and noise of its own."
    choices = figures["choices"]
    others = f" and {figures['look_alikes']} look-alikes" if figures["look_alikes"] else ""
    yield f"{figures['each']} clean pictures a species{others}, {choices['epochs']} epochs, "
    yield f"no negative of the positive's {choices['collisions']}."
    yield "Novel names are unknown to the frozen encoder, rare and novel ones to the generator."
    yield "A figure is the mean over n species, each its mean over seeds, wordings and pictures; brackets are"
    yield "95 % bootstrap intervals over species."
    yield "CLIP-T and CLIP-I are by the encoder that also did the look-up. By the oracle's layers are looks,"
    yield "a cosine to real pictures in DINO's place, style loss, and a Fréchet distance in FID's; real is as"
    yield "many other real pictures, since by few the distance is never 0. FID itself is not measured.\n"


def _recalls(figures: Figures) -> Iterator[str]:
    """Write what the look-ups found first."""
    for where, tiers in figures["recall"].items():
        yield f"## First picture found is of the species, library {where}\n"
        yield from _shares(tiers, METHODS)
        yield "\nAll tiers, by epoch:\n"
        curves = figures["curve"][where]
        epochs = list(curves["normal"])
        yield from table_head("epoch", *epochs)
        for method in METHODS[1:]:
            yield row(method, *(decimal(curves[method][epoch]) for epoch in epochs))
        yield ""


def _shares(tiers: Figures, columns: Sequence[str]) -> Iterator[str]:
    """Write a table of tiers by columns."""
    yield from table_head("tier", *columns, "n")
    for tier, cells in tiers.items():
        yield row(
            tier,
            *(percent(cells[column]["share"], cells[column]["ci"]) for column in columns),
            cells[columns[0]]["n"],
        )


def _accuracies(figures: Figures) -> Iterator[str]:
    """Write how often the drawn pictures are right, and how similar they are."""
    yield "## Drawn picture is of the species\n"
    yield from _shares(figures["accuracy"], COLUMNS)
    yield "\nSimilarity × 100, all tiers:\n"
    yield from table_head("", *COLUMNS, "real")
    similar = figures["similarity"]
    for key in similar["base"]:
        yield row(key, *(decimal(100 * similar[column][key]) for column in COLUMNS), "–")
    if found := figures["distance"]:
        yield row("Fréchet distance", *(decimal(100 * found[column]) for column in (*COLUMNS, "real")))
    yield ""


def _order(figures: Figures) -> Iterator[str]:
    """Write whether each step of the paper's order is seen."""
    yield "## The paper's order\n"
    yield from table_head("measure", "tier", "step", "gain", "")
    measures = {f"found, {where}": gained for where, gained in figures["recall_gains"].items()}
    for name, tiers in (measures | {"drawn": figures["accuracy_gains"]}).items():
        for tier, steps in tiers.items():
            for step, gained in steps.items():
                yield row(name, tier, step, percent(gained["gain"], gained["ci"]), verdict(gained))
    yield ""
