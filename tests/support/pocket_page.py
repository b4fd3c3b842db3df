"""Write docs/pocket.md, which lists what the pocket models know, from the code: `make docs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pleinair.tools.pocket.catalogue.palette import NAMED
from pleinair.tools.pocket.catalogue.prompts import LIGHT_WORDS, PLACE_WORDS, RELATION_WORDS, WEATHER_WORDS
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES

PAGE = Path(__file__).parents[2] / "docs" / "pocket.md"
TIERS = ("known", "rare", "novel")
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
answers "what can you draw?", "which birds do you know?".

## Names

*Known* ones are in the generator's training. *Rare* ones are not, but the encoder, the detector and the
library know them: their first draft is a plain bird, car or dog, and retrieval brings their looks. *Novel*
ones are in no model's training and not in the library.
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
