"""Tests of the answers to questions about the catalogue world."""

from __future__ import annotations

import pytest

from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.language.prompts import PLACE_WORDS
from pleinair.tools.pocket.catalogue.language.questions import answer
from pleinair.tools.pocket.catalogue.species import SPECIES


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("what can you draw?", "199 of them by name"),
        ("Hello!", "Write what to draw"),
        ("thank you", "or what to change"),
        ("Help!", "199 of them by name"),
        ("Who are you?", "I am no language model"),
        ("which birds do you know?", "birds: robin, blue jay"),
        ("What kinds of fish can you draw?", "fish: clownfish, goldfish"),
        ("list all dogs", "dogs: dalmatian, dachshund"),
        ("how many dogs do you know?", "I know 22 dogs by name"),
        ("how many?", "40 birds, 24 butterflies"),
        ("what species do you know?", "40 birds, 24 butterflies"),
        ("what colours are there?", ", ".join(NAMED)),
        ("which places do you know?", ", ".join(PLACE_WORDS)),
        ("what weather can you draw?", "rain, snowfall, fog"),
        ("which sizes are there?", "small or big"),
        ("do you know the hoopoe?", "I look for a reference image"),
        ("what is a hoopoe?", "A hoopoe is one of the birds that I draw"),
        ("What's a labrador?", "its looks are learnt"),
        ("do you know an osprey?", "I cannot draw an osprey; of birds I know, for example, bald eagle"),
    ],
)
def test_answers(text: str, part: str) -> None:
    assert part in (answer(text) or "")


def test_every_species_is_described() -> None:
    for species in SPECIES:
        text = answer(f"what is a {species.name}?") or ""
        assert species.name in text.lower()
        assert ("reference image" in text) is (species.tier != "known")


@pytest.mark.parametrize(
    "text",
    [
        "can you draw a hoopoe?",
        "what would a quetzal look like in the rainforest?",
        "a hoopoe on a beach",
        "birds",
        "show me the birds",
        "how about a dog?",
        "what is the weather like on the beach?",
        "hello, a puffin",
        "nice dogs",
        "",
    ],
)
def test_requests_are_no_questions(text: str) -> None:
    assert answer(text) is None
