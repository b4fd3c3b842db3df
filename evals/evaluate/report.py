"""Report of an evaluation: its first sentence is the verdict; then a table, what harms, gaps and leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.texts import counted
from pleinair.evals.evaluate.findings import (
    ENOUGH,
    LEAST,
    Change,
    Column,
    Findings,
    Harm,
    Verdict,
    least_seeds,
)
from pleinair.evals.metrics import FEW_GROUPS, Interval
from pleinair.evals.report import table

if TYPE_CHECKING:
    from pleinair.evals.evaluate.columns import LibraryStudio
    from pleinair.evals.reproduce.generate import Work

SHOWN = 8  # names in a list
EXAMPLES = 24  # prompts on the page


@dataclass(frozen=True, slots=True)
class Facts:
    """What was evaluated."""

    command: str
    library: str
    images: int
    origin: str  # of the concepts
    too_small: tuple[str, ...]  # concepts of a single image
    not_chosen: int  # usable concepts that were left out by --concepts
    held_out: int
    copies: int  # near copies of held-out images, in no pool
    generator: str
    encoder: str
    mllm: str
    profile: str
    seed: int
    versions: Mapping[str, str]


def first_sentence(findings: Findings) -> str:
    """Return whether retrieval helps, by how much, and where it harms."""
    heads = {
        Verdict.HELPS: "Retrieval helps",
        Verdict.HARMS: "Retrieval harms",
        Verdict.DOES_NOT_HELP: "Retrieval does not help",
        Verdict.UNDECIDED: "Undecided whether retrieval helps",
    }
    head, gain = heads[findings.verdict], findings.gain
    if not gain.n:
        return f"{head}: no prompt has an image both without a reference and with the retrieved one."
    text = (
        f"{head}: {change_text(gain, findings.unit)} of {findings.scorer} "
        f"(n = {counted(gain.concepts, 'concept')}, {counted(findings.seeds, 'seed')}); "
        "it lowers the score of "
    )
    if not findings.harm:
        return f"{text}no concept."
    certain = sum(harm.is_certain for harm in findings.harm)
    single = all(harm.prompts == 1 for harm in findings.harm)
    chance = "by one prompt each, which may be chance" if single else f"{certain or 'none'} beyond chance"
    names = _names([harm.concept for harm in findings.harm])
    return f"{text}{len(findings.harm)} of {counted(gain.concepts, 'concept')}, {chance}: {names}."


def cautions(concepts: int, seeds: int) -> Iterator[str]:
    """Yield what few concepts, or few prompts of each, mean for the result."""
    if concepts < LEAST:
        yield (
            f'{counted(concepts, "concept")}: with fewer than {LEAST} the verdict is "undecided", since '
            "chance alone may point all of them one way; the interval is too narrow."
        )
    elif concepts < ENOUGH:
        yield (
            f'{concepts} concepts: with fewer than {ENOUGH} the verdict is never "does not help", and the '
            "95 % interval is too narrow: in simulations it contained the true gain in about 9 of 10 cases."
        )
    elif concepts < FEW_GROUPS:
        yield f"{concepts} concepts: with fewer than {FEW_GROUPS} the interval is somewhat too narrow."
    if seeds < least_seeds(concepts):
        yield (
            f"{counted(seeds, 'prompt')} of each concept: harm to a single concept cannot be told from "
            f"chance, which takes --seeds {least_seeds(concepts)}."
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def change_text(change: Change, unit: float) -> str:
    """Return a difference with its interval: "+62 points [55, 69]", or "+0.031 [0.012, 0.049]"."""
    points = unit != 1
    ends = change.interval
    return f"{_signed(change.mean, unit)}{' points' * points} {_ends(ends, unit)}".rstrip()


def _signed(value: float, unit: float) -> str:
    text = _number(value, unit)
    return f"+{text}" if value > 0 and text != _number(0, unit) else text


def _ends(ends: Interval | None, unit: float) -> str:
    return "" if ends is None else "[" + ", ".join(_number(end, unit) for end in ends) + "]"


def _number(value: float, unit: float) -> str:
    text = f"{value * unit:.0f}" if unit != 1 else f"{value:.3f}"
    return text.removeprefix("-") if not float(text) else text.replace("-", "−")


def _rows(findings: Findings) -> list[dict[str, object]]:
    """Return the table, a row a column of the evaluation."""
    return [_row(column, findings.measure, findings.unit) for column in findings.columns]


def _row(column: Column, first: str, unit: float) -> dict[str, object]:
    row: dict[str, object] = {"images from": column.title}
    for title, (mean, ends) in column.scores.items():
        scale = unit if title == first else 1.0
        mark = " (%)" if scale == 100 else ""
        row[f"{title}{mark}"] = f"{_number(mean, scale)} {_ends(ends, scale)}".rstrip()
    gain = column.gain.get(first)
    row["gain"] = change_text(gain, unit) if gain else "–"
    row |= {
        "seconds": f"{column.seconds:.2f}",
        "MLLM calls": f"{column.calls:.1f}",
        "images": f"{column.attempts:.1f}",
        "US dollars": f"{column.usd:.4f}",
    }
    return row | ({"without an image": column.failures} if column.failures else {})


def write_text(findings: Findings, facts: Facts) -> str:
    """Return the report in Markdown."""
    return "\n".join(_lines(findings, facts)) + "\n"


def _lines(findings: Findings, facts: Facts) -> Iterator[str]:
    yield f"{first_sentence(findings)}\n"
    yield from table(iter(_filled(_rows(findings))))
    yield ""
    yield from explanations(findings, facts)


def _filled(of_columns: list[dict[str, object]]) -> list[dict[str, object]]:
    names = dict.fromkeys(name for row in of_columns for name in row)
    return [{name: row.get(name, "0") for name in names} for row in of_columns]


def explanations(findings: Findings, facts: Facts) -> Iterator[str]:
    """Yield sentences about what the table leaves open."""
    yield from cautions(findings.gain.concepts, findings.seeds)
    if not findings.is_independent:
        yield "The score is by the MLLM that is the loop's critic too: it is not independent of the loop."
    yield from _shown("Harm", [harm_text(harm, findings.unit) for harm in findings.harm])
    yield from _shown("Gap", [_gap_text(asdict(gap)) for gap in findings.gaps])
    yield _leaks_text(findings)
    yield (
        f"Library: {counted(facts.images, 'image')}; {counted(findings.gain.concepts, 'concept')} by "
        f"{facts.origin}; held out: {counted(facts.held_out, 'image')}, near copies of them: {facts.copies}; "
        f"concepts left out: {facts.not_chosen} by --concepts or for lack of two images that differ, "
        f"{len(facts.too_small)} of one image"
        f"{' (' + _names(facts.too_small) + ')' if facts.too_small else ''}."
    )
    yield (
        f"Generator {facts.generator}; retrieval {facts.encoder}; MLLM {facts.mllm}; profile "
        f"{facts.profile}; seed {facts.seed}."
    )
    yield "All columns share prompts and seeds; a draft that two share is generated once and counted in both."


def _shown(kind: str, texts: Sequence[str]) -> Iterator[str]:
    """Yield the first of a list, and how many more the JSON has."""
    yield from (f"{kind}: {text}" for text in texts[:SHOWN])
    if len(texts) > SHOWN:
        yield f"{kind}: {len(texts) - SHOWN} more in evaluate.json."


def harm_text(harm: Harm, unit: float) -> str:
    """Return what was lost on a concept."""
    lost = f"{harm.concept}: {_signed(harm.mean, unit)}{' points' * (unit != 1)}"
    if harm.prompts == 1:
        return f"{lost} in its only prompt, which shows nothing."
    chance = "beyond chance" if harm.is_certain else "which may be chance"
    return f"{lost}, lower in {harm.lower} of {harm.prompts} prompts, {chance}."


def _gap_text(gap: Mapping[str, Any]) -> str:
    """Return what was retrieved for a concept instead of it."""
    parts = [f"an image of {name} in {count}" for name, count in gap["others"].items()]
    nothing = [f"nothing in {gap['nothing']}"] if gap["nothing"] else []
    return (
        f"{gap['concept']}: retrieved {', '.join([*nothing, *parts])} of {counted(gap['prompts'], 'prompt')}."
    )


def _leaks_text(findings: Findings) -> str:
    """Return how many images are copies of a reference, by column."""
    counts = {column.title: 0 for column in findings.columns if column.gain}
    titles = {column.name: column.title for column in findings.columns}
    for each in findings.leaks:
        counts[titles[each.column]] += 1
    listed = ", ".join(f"{title} {count}" for title, count in counts.items())
    return f"Leaks: images that are nearly copies of their reference: {listed}."


def write_all(
    findings: Findings, facts: Facts, studio: LibraryStudio, works: Sequence[Work], out: Path
) -> list[Path]:
    """Write the text, the page and the JSON; return their paths."""
    text, page, data = (out / f"evaluate.{suffix}" for suffix in ("md", "html", "json"))
    text.write_text(write_text(findings, facts), encoding="utf-8")
    plain = {"sentence": first_sentence(findings), **asdict(findings), "facts": asdict(facts)}
    data.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(_page(findings, facts, studio, works), encoding="utf-8")
    return [text, page, data]


def _page(findings: Findings, facts: Facts, studio: LibraryStudio, works: Sequence[Work]) -> str:
    from jinja2 import Environment, StrictUndefined

    from pleinair.evals.reproduce.page import examples

    source = files("pleinair.evals").joinpath("data/evaluate.html").read_text("utf-8")
    template = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined).from_string(source)
    shown = []
    for group in _chosen(findings):
        subjects = tuple(subject for subject in works[0].subjects if subject.group == group)[:1]
        shown += [
            example | {"concept": group, "notes": _notes(findings, group)}
            for example in examples(studio, [replace(work, subjects=subjects) for work in works])
        ]
    return template.render(
        sentence=first_sentence(findings),
        verdict=findings.verdict.value,
        rows=_filled(_rows(findings)),
        lines=[*explanations(findings, facts)],
        examples=shown,
        facts=facts,
        concepts=findings.gain.concepts,
    )


def _chosen(findings: Findings) -> list[str]:
    """Return the concepts of the page: those of harm, gaps and leaks, then those that gained most."""
    first = [harm.concept for harm in findings.harm] + [gap.concept for gap in findings.gaps]
    first += [each.concept for each in findings.leaks]
    gained = sorted(findings.of_concepts, key=lambda concept: -findings.of_concepts[concept])
    return list(dict.fromkeys([*first, *gained]))[:EXAMPLES]


def _notes(findings: Findings, concept: str) -> list[str]:
    notes = [harm_text(harm, findings.unit) for harm in findings.harm if harm.concept == concept]
    notes += [_gap_text(asdict(gap)) for gap in findings.gaps if gap.concept == concept]
    leaks = sum(each.concept == concept for each in findings.leaks)
    return [*notes, *([f"Near copies of a reference: {leaks}"] if leaks else [])]
