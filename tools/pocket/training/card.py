"""Model card of a pocket model: what it is, how it was trained, and its figures."""

from collections.abc import Mapping
from pathlib import Path

from pleinair.tools.pocket.catalogue.sampling import fingerprint
from pleinair.tools.pocket.training.course import Course

NAME = "MODEL_CARD.md"
HEADING = "## Figures, on held-out seeds"
_CARD = """# {title}

A miniature model for the miniature world of pleinair; it understands nothing else.

{text}
## Training

| | |
|---|---|
{rows}
| data | scenes rendered from seeds; world `{world}` |
| license | Apache-2.0, weights and data |

"""
_FIGURES = """{heading}

{count}; world `{world}`.

| measured | figure | bar |
|---|---|---|
{rows}

Again with `{command}`.
"""

Figures = Mapping[str, tuple[str, str]]  # measure -> figure, bar


def write_card(folder: Path, title: str, text: str, facts: Course | Mapping[str, str]) -> None:
    """Write MODEL_CARD.md without figures.

    `text` is a module's docstring, `facts` a training or its rows.
    """
    if isinstance(facts, Course):
        command = f"python -m pleinair.tools.pocket.training {folder.name}"
        facts = {
            "parameters": f"{sum(p.numel() for p in facts.model.parameters()):,}",
            "steps": f"{facts.step:,}",
            "seconds": f"{facts.seconds:.0f}",
            "command": f"`{command} {facts.run.size(f'--minutes {facts.run.minutes:g}', '--tiny')}`",
        }
    rows = "\n".join(f"| {name} | {fact} |" for name, fact in facts.items())
    card = _CARD.format(title=title, text=text, rows=rows, world=fingerprint())
    (folder / NAME).write_text(card, encoding="utf-8")


def figures_section(figures: Figures, count: str, command: str) -> str:
    """Return the section of figures: on how much they were measured, and by which command."""
    rows = "\n".join(f"| {name} | {figure} | {bar} |" for name, (figure, bar) in figures.items())
    return _FIGURES.format(heading=HEADING, count=count, world=fingerprint(), rows=rows, command=command)


def replace_figures(card: Path, section: str) -> None:
    """Replace the figures of a card, or append them to one without; the rest of it stays."""
    text = card.read_text(encoding="utf-8").partition(HEADING)[0]
    card.write_text(text + section, encoding="utf-8")
