"""Write docs/pocket.md, which lists what the pocket models know, and its sheet pocket.png: `make docs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pleinair.tools.pocket.catalogue.drawings.painting import paint
from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.language.prompts import (
    LIGHT_WORDS,
    PLACE_WORDS,
    RELATION_WORDS,
    WEATHER_WORDS,
)
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES

PAGE = Path(__file__).parents[2] / "docs" / "pocket.md"
SHEET = PAGE.with_suffix(".png")
TIERS = ("known", "rare", "novel")
PAPER = {"known": "#dfe8da", "rare": "#ffe9ad", "novel": "#cfe0fa"}
COLUMNS, CELL, LABEL = 12, 112, 16  # of the sheet: species in a row, pixels of each and of its name
HEAD = """# The miniature world

<!-- Generated from the code by `make docs`; do not edit. -->

The profile `pocket`, the default, needs no key, no GPU and no download: its generator, encoder and concept
detector are miniature models of the classes that the other profiles use, trained by this project on a world
that a small vector renderer draws, 96 × 96 pixels. They know what is on this page and nothing else. Its
chat model is no language model: it reads prompts by rules, and looks at images by the trained detector.

```sh
pleinair draw "please draw me two puffins on a beach at sunset"
pleinair draw "behind the taxi there is a husky"
```

A prompt is free English: capitals, politeness, word order, plurals and small spelling mistakes do not
matter, and a run says how a prompt was read and what was left out. An image has up to three different
things; of one or two different things each may be there once, twice or three times, small or big. A kind
can have a colour ("a red car"), a named species has its own. What is not in this world (other animals,
people, clothes, actions, styles, text) is refused before an image is drawn, in one line with the nearest
names. A chat takes changes ("add a dog on the left", "make it night", "a hoopoe instead of the puffin") and
answers "what can you draw?", "which birds do you know?"; other questions are refused, not drawn.

## Names

*Known* ones are in the generator's training. *Rare* ones are not, but the encoder, the detector and the
library know them: their first draft is a plain bird, car or dog, and retrieval brings their looks. *Novel*
ones are in no model's training and not in the library: retrieval abstains, and the image is what the
generator invents. In a library of yours that has captioned drawings of one, it is found.

![All species, drawn by the world's renderer: known on green, rare on yellow, novel on blue](pocket.png)
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join((HEAD, *_names(), "\n## Words", "", *_words())) + "\n"


def _names() -> Iterator[str]:
    yield f"| kind | {' | '.join(TIERS)} |"
    yield "| --- | --- | --- | --- |"
    for kind in KINDS.values():
        cells = (
            ", ".join(
                species.name for species in SPECIES if (species.kind, species.tier) == (kind.name, tier)
            )
            for tier in TIERS
        )
        yield f"| {kind.plural} | {' | '.join(cells)} |"


def sheet() -> Image.Image:
    """Draw all species with their names, kind by kind: known ones on green, rare on yellow, novel on blue."""
    groups = [[species for species in SPECIES if species.kind == kind] for kind in KINDS]
    rows = [group[start : start + COLUMNS] for group in groups for start in range(0, len(group), COLUMNS)]
    canvas = Image.new("RGB", (2 * COLUMNS * CELL, 2 * len(rows) * (CELL + LABEL)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(18)
    for row, group in enumerate(rows):
        for column, species in enumerate(group):
            left, top = 2 * column * CELL, 2 * row * (CELL + LABEL)
            corner = (left + 2 * CELL - 1, top + 2 * (CELL + LABEL) - 1)
            draw.rectangle(((left, top), corner), fill=PAPER[species.tier])
            paint(canvas, species.shapes, (left + CELL, top + CELL), 0.92 * CELL)
            place = (left + CELL, top + 2 * CELL + LABEL)
            draw.text(place, species.name, fill="black", font=font, anchor="mm")
    return canvas.reduce(2).quantize(128)


def _words() -> Iterator[str]:
    yield "| | |"
    yield "| --- | --- |"
    yield _row("colours of a kind", NAMED)
    yield _row("relations", RELATION_WORDS)
    for name, table in (("places", PLACE_WORDS), ("light", LIGHT_WORDS), ("weather", WEATHER_WORDS)):
        yield _row(name, (words[0] for words in table.values() if words and words[0]))


def _row(name: str, words: Iterable[str]) -> str:
    return f"| {name} | {', '.join(words)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sheet().save(SHEET, optimize=True)
