"""Report of an evaluation: its first sentence is the verdict; then a table, what harms, gaps and leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.evals.evaluate.findings import Change, Column, Findings, Harm, Verdict
from pleinair.evals.metrics import Interval
from pleinair.evals.report import table
from pleinair.evals.reproduce.results import title_of

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
    gain, unit = findings.gain, findings.unit
    text = (
        f"{heads[findings.verdict]}: {change_text(gain, unit)} of {findings.scorer} "
        f"(n = {gain.concepts} concepts, {findings.seeds} {'seed' if findings.seeds == 1 else 'seeds'})"
    )
    if not findings.harm:
        return f"{text}; it lowers the score of no concept."
    certain = sum(harm.is_certain for harm in findings.harm)
    return (
        f"{text}; it lowers the score of {len(findings.harm)} of {gain.concepts} concepts "
        f"({certain} with an interval below 0): {_names([harm.concept for harm in findings.harm])}."
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def change_text(change: Change, unit: float) -> str:
    """Return a difference with its interval: "+62 points [55, 69]", or "+0.031 [0.012, 0.049]"."""
    points = unit != 1
    ends = change.interval
    mean = f"{change.mean * unit:+.0f} points" if points else f"{change.mean:+.3f}"
    return f"{mean.replace('-', '−')} {_ends(ends, unit)}".rstrip()


def _prompts(count: int) -> str:
    return f"{count} prompt" if count == 1 else f"{count} prompts"


def _ends(ends: Interval | None, unit: float) -> str:
    return "" if ends is None else "[" + ", ".join(_number(end, unit) for end in ends) + "]"


def _number(value: float, unit: float) -> str:
    text = f"{value * unit:.0f}" if unit != 1 else f"{value:.3f}"
    return "0" if text == "-0" else text.replace("-", "−")


def rows(findings: Findings) -> list[dict[str, object]]:
    """Return the table, a row a column of the evaluation."""
    first = title_of(findings.scorer)
    return [_row(column, first, findings.unit) for column in findings.columns]


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
    yield from table(iter(_filled(rows(findings))))
    yield ""
    yield from explanations(findings, facts)


def _filled(of_columns: list[dict[str, object]]) -> list[dict[str, object]]:
    names = dict.fromkeys(name for row in of_columns for name in row)
    return [{name: row.get(name, "0") for name in names} for row in of_columns]


def explanations(findings: Findings, facts: Facts) -> Iterator[str]:
    """Yield sentences about what the table leaves open."""
    if findings.gain.concepts < 30:
        yield f"{findings.gain.concepts} concepts: with fewer than 30 the intervals are too narrow."
    if not findings.is_independent:
        yield "The score is by the MLLM that is the loop's critic too: it is not independent of the loop."
    for harm in findings.harm[:SHOWN]:
        yield f"Harm: {harm_text(harm, findings.unit)}"
    if findings.gaps:
        count = len(findings.gaps)
        yield f"Gaps: {count} of {findings.gain.concepts} concepts are not served in every prompt:"
        yield from (f"  {gap_text(gap)}" for gap in map(asdict, findings.gaps[:SHOWN]))
        if count > SHOWN:
            yield f"  and {count - SHOWN} more, which the page and the JSON have."
    yield leaks_text(findings)
    yield (
        f"Library: {facts.images:,} images; concepts by {facts.origin}; {facts.held_out} images held out, "
        f"{facts.copies} near copies of them in no pool; {len(facts.too_small)} concepts have one image and "
        f"are left out{': ' + _names(facts.too_small) if facts.too_small else ''}; {facts.not_chosen} more "
        "by --concepts."
    )
    yield (
        f"Generator {facts.generator}; retrieval {facts.encoder}; MLLM {facts.mllm}; profile "
        f"{facts.profile}; seed {facts.seed}."
    )
    yield "All columns share prompts and seeds; a draft that two share is generated once and counted in both."


def harm_text(harm: Harm, unit: float) -> str:
    """Return what was lost on a concept."""
    certain = "" if harm.is_certain else ", which may be chance"
    return f"{harm.concept}: {change_text(harm.change, unit)} over {_prompts(harm.change.n)}{certain}"


def gap_text(gap: Mapping[str, Any]) -> str:
    """Return what was found for a concept instead of it."""
    parts = [f"{count} showed {name}" for name, count in gap["others"].items()]
    nothing = [f"{gap['nothing']} found nothing"] if gap["nothing"] else []
    return f"{gap['concept']}: of {_prompts(gap['prompts'])} {', '.join([*nothing, *parts])}"


def leaks_text(findings: Findings) -> str:
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
        rows=_filled(rows(findings)),
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
    notes += [gap_text(asdict(gap)) for gap in findings.gaps if gap.concept == concept]
    leaks = sum(each.concept == concept for each in findings.leaks)
    return [*notes, *([f"{leaks} images nearly copy their reference"] if leaks else [])]
