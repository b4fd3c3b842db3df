"""Write the card of a pocket model: what it is, how it was trained, what it reaches."""

from collections.abc import Mapping
from pathlib import Path

from pleinair.tools.pocket.training.course import Course
from pleinair.tools.pocket.world import fingerprint

NAME = "MODEL_CARD.md"
CARD = """# {title}

A miniature model for the miniature world of pleinair; it understands nothing else.

{text}
## Training

| | |
|---|---|
| parameters | {parameters:,} |
| data | scenes rendered from seeds, worn down at random; world `{world}` |
| steps | {steps:,} |
| seconds | {seconds:.0f}, on one CPU core |
| command | `python -m pleinair.tools.pocket.training {part} --minutes {minutes:g}` |
| licence | Apache-2.0, weights and data |

{figures}"""
HEADING = "## Figures, on held-out seeds"
FIGURES = (
    HEADING
    + """

{count}; world `{world}`.

| measured | figure | bar |
|---|---|---|
{rows}

Again with `{command}`.
"""
)

Figures = Mapping[str, tuple[str, str]]  # what was measured -> figure, bar


def write_card(folder: Path, title: str, text: str, course: Course, figures: str) -> None:
    """Write MODEL_CARD.md; `text` is a module's docstring, `figures` that section of the card."""
    card = CARD.format(
        title=title,
        text=text,
        parameters=sum(p.numel() for p in course.model.parameters()),
        world=fingerprint(),
        steps=course.step,
        seconds=course.seconds,
        part=course.path.stem,
        minutes=course.minutes,
        figures=figures,
    )
    (folder / NAME).write_text(card, encoding="utf-8")


def figures_section(figures: Figures, count: str, command: str) -> str:
    """Say what was measured, on how much, in which world, against which bar, and how to measure it again."""
    rows = "\n".join(f"| {name} | {figure} | {bar} |" for name, (figure, bar) in figures.items())
    return FIGURES.format(count=count, world=fingerprint(), rows=rows, command=command)


def replace_figures(card: Path, section: str) -> None:
    """Write the figures of a card anew; how the model was trained stays as it is told."""
    told, heading, _ = card.read_text(encoding="utf-8").partition(HEADING)
    assert heading, f"{card} has no figures"
    card.write_text(told + section, encoding="utf-8")
