"""Tests of how prompts are read and written."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pleinair.tools.pocket.catalogue.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request, write_prompt
from pleinair.tools.pocket.catalogue.language.reading import complete, concepts, read, write
from pleinair.tools.pocket.catalogue.language.refusals import Kind, NotUnderstood
from pleinair.tools.pocket.catalogue.scenes import RELATIONS
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES
from pleinair.tools.types import Concept

ROBIN, CROW, TAXI = Mention("robin"), Mention("crow"), Mention("taxi")


def request_at_random(rng: random.Random) -> Request:
    """Draw a request of any names, counts, sizes, colours, relations and settings that the world has."""
    count = rng.choice((1, 1, 2, 2, 3))
    mentions = []
    for _ in range(count):
        name = rng.choice([rng.choice(SPECIES).name, rng.choice(list(KINDS))])
        colour = rng.choice(["", *NAMED]) if name in KINDS else ""
        times = rng.choice((1, 1, 2, 3)) if count < 3 else 1
        mentions.append(Mention(name, times, rng.choice(("", "small", "big")), colour))
    relations = (rng.choice(RELATIONS), "beside")[: count - 1]
    background = rng.choice(["", *BACKGROUNDS])
    light, weather = rng.choice(("", "sunset", "night")), rng.choice(("", "rain", "snowfall", "fog"))
    return Request(tuple(mentions), relations, background, light, weather)


def test_what_is_written_is_read_again() -> None:
    rng = random.Random(1)
    for _ in range(1000):
        request = request_at_random(rng)
        assert read(write(request)).request == request, write(request)


def test_every_wording_of_the_training_is_read() -> None:
    rng = random.Random(2)
    for _ in range(1000):
        request = request_at_random(rng)
        prompt = write_prompt(rng, request)
        assert read(prompt).request == request, prompt


def test_every_species_is_read_alone_and_in_the_plural() -> None:
    for species in SPECIES:
        assert read(f"a {species.name}").request.mentions == (Mention(species.name),)
        assert read(write(Request((Mention(species.name, 3),)))).request.mentions == (
            Mention(species.name, 3),
        )


def test_writing_is_deterministic_and_leaves_out_a_clear_day() -> None:
    request = Request((ROBIN, CROW, TAXI), (), "beach", "day", "clear")
    assert write(request) == write(request) == "a robin, a crow and a taxi on a beach"
    assert read(write(request)).request == complete(request)
    assert complete(request) == Request((ROBIN, CROW, TAXI), ("beside", "beside"), "beach")


@pytest.mark.parametrize(
    ("prompt", "mentions", "relations"),
    [
        ("behind the taxi there is a robin", (ROBIN, TAXI), ("behind",)),
        ("Behind a taxi, a robin", (ROBIN, TAXI), ("behind",)),
        ("a taxi with a robin on top", (ROBIN, TAXI), ("on",)),
        ("a taxi with a robin behind it", (ROBIN, TAXI), ("behind",)),
        ("a taxi; in front of it, a robin", (ROBIN, TAXI), ("in front of",)),
        ("There is a taxi. On top of it there is a robin.", (ROBIN, TAXI), ("on",)),
        ("A taxi and a robin. The robin is on the taxi.", (ROBIN, TAXI), ("on",)),
        ("left: robin, right: crow", (ROBIN, CROW), ("left of",)),
        ("a robin on the left and a crow on the right", (ROBIN, CROW), ("left of",)),
        ("at the bottom a crow, at the top a robin", (CROW, ROBIN), ("under",)),
        ("a robin above, a crow below", (ROBIN, CROW), ("above",)),
        ("to the left of a crow sits a robin", (ROBIN, CROW), ("left of",)),
        ("a robin and a crow side by side", (ROBIN, CROW), ("beside",)),
        ("a robin, a crow, beside each other", (ROBIN, CROW), ("beside",)),
        ("a robin on a taxi and next to them a crow", (ROBIN, TAXI, CROW), ("on", "beside")),
        ("a crow, plus a robin on a taxi", (ROBIN, TAXI, CROW), ("on", "beside")),
        ("a robin left of a crow left of a taxi", (ROBIN, CROW, TAXI), ("left of", "beside")),
        ("a taxi right of a crow right of a robin", (ROBIN, CROW, TAXI), ("left of", "beside")),
        ("a taxi with a robin on its roof", (ROBIN, TAXI), ("on",)),
        ("a robin sits in front. Behind it is a taxi.", (TAXI, ROBIN), ("behind",)),
        ("a robin between a crow and a taxi", (CROW, ROBIN, TAXI), ("beside", "beside")),
        ("between a crow and a taxi there is a robin", (CROW, ROBIN, TAXI), ("beside", "beside")),
        ("right: taxi, left: robin, in the middle: crow", (ROBIN, CROW, TAXI), ("beside", "beside")),
        ("a taxi in the background and a robin in the foreground", (TAXI, ROBIN), ("behind",)),
    ],
)  # fmt: skip
def test_relations_may_be_inverted(
    prompt: str, mentions: tuple[Mention, ...], relations: tuple[str, ...]
) -> None:
    request = read(prompt).request
    assert (request.mentions, request.relations) == (mentions, relations)


@pytest.mark.parametrize(
    ("prompt", "mentions"),
    [
        ("an orange", (Mention("orange"),)),
        ("an orange fish", (Mention("fish", colour="orange"),)),
        ("a fish that is orange", (Mention("fish", colour="orange"),)),
        ("an orange clownfish", (Mention("clownfish"),)),
        ("bananas, apples and pears", (Mention("banana"), Mention("apple"), Mention("pear"))),
        ("a taxi, poppies, and dogs", (Mention("taxi"), Mention("poppy"), Mention("dog"))),
        ("apples and pears", (Mention("apple", 2), Mention("pear", 2))),
        ("a penguin on ice", (Mention("emperor penguin"),)),
        ("two orange oranges", (Mention("orange", 2),)),
        ("oranges, clownfish", (Mention("orange", 2), Mention("clownfish"))),
        ("an orange and a fish", (Mention("orange"), Mention("fish"))),
        ("a lavender butterfly on lavender", (Mention("butterfly", colour="purple"), Mention("lavender"))),
        ("two small coppers", (Mention("small copper", 2),)),
        ("two small small coppers", (Mention("small copper", 2, "small"),)),
        ("a peacock and a peacock butterfly", (Mention("peacock"), Mention("peacock butterfly"))),
        ("a gold fish and a goldfish", (Mention("fish", colour="gold"), Mention("goldfish"))),
        ("a perch", (Mention("perch"),)),
        ("a robin perched", (ROBIN,)),
        ("flamingos, two of them", (Mention("flamingo", 2),)),
        ("a car, red, big", (Mention("car", 1, "big", "red"),)),
        ("two cars: one red, one blue", (Mention("car", colour="red"), Mention("car", colour="blue"))),
        ("a red car and a blue one", (Mention("car", colour="red"), Mention("car", colour="blue"))),
        ("an orange fish, a big one", (Mention("fish", 1, "big", "orange"),)),
        ("a red car, a blue one", (Mention("car", colour="red"), Mention("car", colour="blue"))),
        ("a red and a blue car", (Mention("car", colour="red"), Mention("car", colour="blue"))),
        ("a red, a blue and a green car", tuple(Mention("car", colour=c) for c in ("red", "blue", "green"))),
        ("one red and one blue car", (Mention("car", colour="red"), Mention("car", colour="blue"))),
        ("a taxi and a car. The car is red.", (TAXI, Mention("car", colour="red"))),
        ("a golden goldfish and white edelweiss", (Mention("goldfish"), Mention("edelweiss"))),
        ("a forest green car", (Mention("car", colour="green"),)),
        ("left to right: robin, crow, taxi", (ROBIN, CROW, TAXI)),
        ("red and blue cars", (Mention("car", colour="red"), Mention("car", colour="blue"))),
        ("red, blue and green cars", tuple(Mention("car", colour=c) for c in ("red", "blue", "green"))),
        ("big and small dogs", (Mention("dog", size="big"), Mention("dog", size="small"))),
        (
            "three cars: a red one, a blue one and a green one",
            tuple(Mention("car", colour=c) for c in ("red", "blue", "green")),
        ),
        ("three birds, two of them red", (Mention("bird", 2, colour="red"), Mention("bird"))),
        ("a small, blue fish", (Mention("fish", size="small", colour="blue"),)),
        ("a yellow bus", (Mention("school bus"),)),
        ("a red parrot and a bus", (Mention("scarlet macaw"), Mention("city bus"))),
        ("a dog; a small, blue fish", (Mention("dog"), Mention("fish", 1, "small", "blue"))),
        ("2x robin, 3 dogs", (Mention("robin", 2), Mention("dog", 3))),
        ("a St. Bernard", (Mention("saint bernard"),)),
        ("two birds: a robin and a crow", (ROBIN, CROW)),
        ("my favourite bird: the robin", (ROBIN,)),
        ("a morel mushroom, a beagle dog", (Mention("morel"), Mention("beagle"))),
        ("a puppy with a toadstool", (Mention("dog"), Mention("mushroom"))),
        ("some grapes and some daisies", (Mention("grapes"), Mention("daisy", 3))),
        ("forget me nots", (Mention("forget-me-not", 2),)),
        ("an icecream van, a sea horse", (Mention("ice-cream van"), Mention("seahorse"))),
        ("a black crow", (CROW,)),
    ],
)  # fmt: skip
def test_subjects(prompt: str, mentions: tuple[Mention, ...]) -> None:
    assert read(prompt).request.mentions == mentions


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("on a lake", {"background": "lake"}),
        ("in the snow", {"background": "snow"}),
        ("in falling snow", {"weather": "snowfall"}),
        ("in the snow in the mountains", {"background": "mountains", "weather": "snowfall"}),
        ("under the sea at night", {"background": "underwater", "light": "night"}),
        ("in the sea", {"background": "sea"}),
        ("on a big foggy street", {"background": "road", "weather": "fog"}),
        ("in a sunny meadow", {"background": "meadow", "light": "day", "weather": "clear"}),
        ("on the beach under a blue sky", {"background": "beach"}),
        (", night, rain, city", {"background": "city", "light": "night", "weather": "rain"}),
        (". It is snowing.", {"weather": "snowfall"}),
        ("in the rain forest", {"background": "jungle"}),
    ],
)  # fmt: skip
def test_places_lights_and_weathers(words: str, settings: dict[str, str]) -> None:
    assert read(f"a robin {words}").request == replace(Request((ROBIN,)), **settings)  # type: ignore[arg-type]


def test_settings_may_come_first_and_relations_to_things_are_none() -> None:
    assert read("On the beach at dusk: a robin").request == Request((ROBIN,), (), "beach", "sunset")
    assert read("sky with a robin").request == Request((ROBIN,), (), "sky")
    assert read("a robin on a taxi").request.background == ""


@pytest.mark.parametrize(
    "prompt",
    [
        "could you please draw a robin?",
        "Hi, I'd love to see a robin, thanks!",
        "what would a robin look like?",
        "a really beautiful high quality photo of a robin, 4k",
        "a ROBIN :)",
        "make me an image with a robin in it, no text",
        "the robin is sitting",
        "a robin strutting",
        "“robin”",
    ],
)
def test_politeness_quality_and_poses_are_left_out(prompt: str) -> None:
    assert read(prompt).request == Request((ROBIN,))


def test_what_was_left_out_or_read_as_another_word_is_stated() -> None:
    reading = read("a lovely flamigo and a penguin, hovering")
    assert reading.omitted == ("lovely", "hovering")
    assert reading.corrected == {"flamigo": "flamingo", "penguin": "emperor penguin"}


@pytest.mark.parametrize(
    ("prompt", "omitted"),
    [
        ("a robin for my grandmother", ("for my grandmother",)),
        ("for my mum and dad: a robin", ("for my mum and dad",)),
        ("a robin for breakfast", ("for breakfast",)),
        ("my daughter wants a robin, watching", ("watching",)),
        ("a robin named Rex", ("named Rex",)),
        ("a random robin", ("random",)),
    ],
)
def test_purposes_and_own_names_are_left_out(prompt: str, omitted: tuple[str, ...]) -> None:
    reading = read(prompt)
    assert reading.request == Request((ROBIN,))
    assert reading.omitted == omitted


@pytest.mark.parametrize(
    "prompt",
    [
        "can you draw a robin?",
        "How about a robin?",
        "why not a robin",
        "what would a robin look like?",
        "is it possible to see a robin?",
        "what I want is a robin",
        "What a lovely robin",
    ],
)
def test_a_wish_in_the_form_of_a_question_is_drawn(prompt: str) -> None:
    assert read(prompt).request.mentions == (ROBIN,)


def test_what_is_looked_for_is_no_purpose() -> None:
    with pytest.raises(NotUnderstood, match="unicorn"):
        read("I am looking for a unicorn")
    assert read("a card for a robin").request.mentions == (ROBIN,)


@pytest.mark.parametrize(
    ("prompt", "kind", "phrase", "nearest"),
    [
        ("an osprey", "unknown name", "osprey", "bald eagle"),
        ("a golden eagle and a robin", "unknown name", "golden eagle", "bald eagle"),
        ("a robin and a zorgle", "unknown name", "zorgle", ""),
        ("a zorgle owl", "unknown name", "zorgle owl", "barn owl"),
        ("an atlas moth", "unknown name", "atlas moth", "luna moth"),
        ("a robin in a park", "unknown name", "park", "meadow"),
        ("a robin at dawn", "unknown name", "dawn", "sunset"),
        ("a robin over a violet", "unknown name", "a violet", ""),
        ("a robin above", "relations", "a robin above", "robin"),
        ("robin 1.2", "unknown name", "1.2", ""),
        ("a story", "unknown name", "story", ""),
        ("four robins", "too many of one", "four", "robin"),
        ("a flock of crows", "too many of one", "flock of", "crow"),
        ("robin, crow, taxi, pug", "too many subjects", "robin, crow, taxi, pug", "robin"),
        ("two robins, a crow and a taxi", "too many subjects", "2 × robin, crow, taxi", "robin"),
        ("a green hoopoe", "colour", "green", "hoopoe"),
        ("a red and white dog", "colour", "red and white", ""),
        ("a dog wearing a red hat", "not shown", "wearing a red hat", "dog"),
        ("a robin with blue wings", "not shown", "wings", "robin"),
        ("a robin nibbling an apple", "unknown name", "nibbling", ""),
        ("a child and a dog", "not shown", "child", "dog"),
        ("a dog driving a car", "not shown", "driving a car", "dog"),
        ("two cars, one behind the other", "relations", "one of 2 car", "car"),
        ("a red and a blue car behind a dog", "relations", "car and car behind dog", "car"),
        ("a dog chasing a car", "not shown", "chasing a car", "dog"),
        ("a dog in a car", "not shown", "in a car", "car"),
        ("a car with a dog in it", "not shown", "in it", "dog"),
        ("two cars, red and blue", "colour", "blue and red", ""),
        ("a dog's car", "unknown name", "dog's car", "police car"),
        ("a watercolour of a robin", "not shown", "watercolour", "robin"),
        ("a robin or a crow", "not shown", "or a crow", "robin"),
        ("a taxi without wheels", "negation", "without wheels", "taxi"),
        ("surprise me", "unknown name", "surprise", ""),
        ("the beach at night", "no subject", "the beach at night", ""),
        ("", "no subject", "", ""),
        ("ein Hund auf der Straße", "language", "ein Hund auf der Straße", ""),
        ("собака", "language", "собака", ""),
        ("a robin on the beach and a crow in the city", "settings", "beach and city", "beach"),
        ("a robin in rain and fog", "settings", "rain and fog", "rain"),
        ("a robin and a crow on a taxi", "relations", "robin and crow on taxi", "robin"),
        ("Hello, what colour is a robin", "question", "Hello, what colour is a robin", ""),
        ("Is that a hoopoe?", "question", "Is that a hoopoe?", ""),
        ("which butterfly is this?", "question", "which butterfly is this?", ""),
        ("when was the puffin drawn?", "question", "when was the puffin drawn?", ""),
        ("a taxi with a pug and a robin behind it", "relations", "robin behind it", "taxi"),
        ("a robin on a taxi behind a crow", "relations", "a robin on a taxi behind a crow", "robin"),
    ],
)  # fmt: skip
def test_refusals_name_what_is_not_of_the_world(prompt: str, kind: Kind, phrase: str, nearest: str) -> None:
    with pytest.raises(NotUnderstood) as refusal:
        read(prompt)
    assert (refusal.value.kind, refusal.value.phrase) == (kind, phrase)
    assert next(iter(refusal.value.nearest), "") == nearest
    assert len(refusal.value.nearest) <= 3
    assert "\n" not in str(refusal.value)


def test_the_message_has_the_phrase_and_the_nearest_names() -> None:
    with pytest.raises(
        NotUnderstood, match="cannot draw an osprey; of birds I know, for example, bald eagle, "
    ):
        read("an osprey")


def test_spelling_is_corrected_towards_the_world_only() -> None:
    for word, name in (("pinapple", "pineapple"), ("chihauhua", "chihuahua"), ("yelow canary", "canary")):
        assert read(f"a {word}").request.mentions == (Mention(name),)
    for word in ("start", "stock", "moral", "crops", "policy", "bullfrog"):
        with pytest.raises(NotUnderstood):
            read(f"a {word}")


def test_concepts_are_the_things_that_must_be_visible() -> None:
    request = Request((Mention("hoopoe", 2, "big"), Mention("car", colour="red"), Mention("grapes")))
    assert concepts(request) == (
        Concept(name="hoopoe", caption="a hoopoe"),
        Concept(name="red car", caption="a red car"),
        Concept(name="grapes", caption="grapes"),
    )
    assert len(concepts(Request((ROBIN, ROBIN)))) == 1
