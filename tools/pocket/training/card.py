"""Write the card of a pocket model: what it is, how it was trained, what it reaches."""

from collections.abc import Mapping
from pathlib import Path

from pleinair.tools.pocket.training.course import Course
from pleinair.tools.pocket.world import fingerprint

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

## Figures, on held-out seeds

| | |
|---|---|
{rows}
"""


def write_card(folder: Path, title: str, text: str, course: Course, figures: Mapping[str, str]) -> None:
    """Write MODEL_CARD.md; `text` is a module's docstring."""
    card = CARD.format(
        title=title,
        text=text,
        parameters=sum(p.numel() for p in course.model.parameters()),
        world=fingerprint(),
        steps=course.step,
        seconds=course.seconds,
        part=course.path.stem,
        minutes=course.minutes,
        rows="\n".join(f"| {name} | {figure} |" for name, figure in figures.items()),
    )
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
