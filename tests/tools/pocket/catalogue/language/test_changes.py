"""Tests of changes of a request in a chat."""

from __future__ import annotations

import random

import pytest

from pleinair.tools.pocket.catalogue.language.changes.change import Change, change
from pleinair.tools.pocket.catalogue.language.lexicon import CHANGES
from pleinair.tools.pocket.catalogue.language.reading import complete, read, write
from pleinair.tools.pocket.catalogue.language.refusals import Kind, NotUnderstood


def changed(before: str, text: str) -> str:
    """Return the prompt of what a text makes of a prompt."""
    return write(change(text, read(before).request).request)


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        # added
        ("a hoopoe on a beach", "add a puffin on the left", "a puffin left of a hoopoe on a beach"),
        ("a hoopoe", "and a dog", "a hoopoe and a dog"),
        ("a hoopoe", "Could you also add a car under the bird?", "a car under a hoopoe"),
        ("a hoopoe", "put a dog behind it", "a dog behind a hoopoe"),
        ("a robin on a taxi", "add a crow", "a robin on a taxi and a crow"),
        ("a dog", "add a red car and a crow", "a dog, a red car and a crow"),
        ("a hoopoe", "add another hoopoe", "two hoopoes"),
        ("two dogs", "one more dog", "three dogs"),
        ("a hoopoe on a beach", "add some fog", "a hoopoe on a beach in fog"),
        ("a hoopoe on a beach", "add snow", "a hoopoe on a beach in falling snow"),
        ("a beagle", "bring back the pug", "a beagle and a pug"),
        ("a car", "same picture with a dog", "a car and a dog"),
        ("a dog on a beach", "throw in a red car", "a dog and a red car on a beach"),
        ("a dog on a beach", "can we get a crow in there too", "a dog and a crow on a beach"),
        ("a dog on a beach", "+ a rose", "a dog and a rose on a beach"),
        ("a dog on a beach", "i'd like a yellow bird on top of the dog", "a yellow bird on a dog on a beach"),
        ("a dog on a beach", "put a flower next to it, it looks lonely", "a dog and a flower on a beach"),
        (
            "a puffin on a beach",
            "sunset, rain, and one more puffin",
            "two puffins on a beach at sunset in the rain",
        ),
        (
            "a school bus on a road",
            "add a crow sitting on top of the bus",
            "a crow on a school bus on a road",
        ),
        ("a poppy right of a rose", "daisy too", "a poppy right of a rose and a daisy"),
        ("a puffin on a beach", "rain and a second puffin", "two puffins on a beach in the rain"),
        ("a monarch", "put a rose there", "a monarch and a rose"),  # not the colour
        ("a monarch", "put another orange", "a monarch and an orange"),
        ("a pug", "more pugs", "two pugs"),
        # removed
        ("two dogs", "fewer dogs", "a dog"),
        ("a robin and a blue tit", "remove the blue one", "a robin"),
        ("a taxi and a police car", "I only need the taxi, remove the other one", "a taxi"),
        ("a pug and a police car", "Actually I just want the dog.", "a pug"),
        ("a pug left of a beagle", "delete the one on the right", "a pug"),
        ("a robin on a taxi", "i don't want the robin anymore", "a taxi"),
        ("a robin on a taxi", "the taxi has to go", "a robin"),
        ("a robin on a taxi", "make the robin disappear", "a taxi"),
        ("an owl and a puffin at night", "keep the owl, drop the other one", "a barn owl at night"),
        ("a puffin, a robin and a car", "everything gone except the car", "a car"),
        ("a puffin, a robin and a car", "leave just the car and the puffin", "a puffin and a car"),
        ("two dogs in the rain", "just one of them", "a dog in the rain"),
        ("three dogs and a car", "remove one of them", "two dogs and a car"),
        ("two dogs and a car", "one dog is enough", "a dog and a car"),
        ("a dog in the rain", "i don't need the rain", "a dog"),
        ("a dog and a car", "without the car", "a dog"),
        ("two dogs", "remove one of the dogs", "a dog"),
        ("a dog and a car in rain", "remove the car and the rain", "a dog"),
        ("a robin, a crow and a taxi", "take away the crow, please", "a robin and a taxi"),
        ("a robin on a taxi and a crow", "remove the crow", "a robin on a taxi"),
        ("a dog and a car and a crow", "only the dog and the crow", "a dog and a crow"),
        ("a dog in the rain", "no rain", "a dog"),
        ("a dog at night", "not at night", "a dog"),
        # replaced
        ("a betta under water", "sorry, i wanted a lionfish", "a lionfish under water"),
        ("a hot rod and a pug", "not a hot rod, a racing car", "a racing car and a pug"),
        ("a pug at a lake", "it looks lonely, I'd rather have two huskies", "two huskies by a lake"),
        ("a pug in the rain", "fog not rain", "a pug in fog"),
        (
            "a pug and a city bus on a road",
            "both of them in the city instead",
            "a pug and a city bus in a city",
        ),
        ("a heron at a lake at night", "its too dark, daytime please", "a grey heron by a lake"),
        ("a plum on a dog", "a peach rather than a plum", "a peach on a dog"),
        ("a car in the rain", "a bus would be nicer", "a city bus in the rain"),
        ("a car in the rain", "no, I meant the fire engine", "a fire engine in the rain"),
        ("a car in the rain", "actually, a taxi", "a taxi in the rain"),
        ("a red fish at sea", "a clownfish, not a fish", "a clownfish at sea"),
        ("a dog in a city", "I think the forest would suit it better", "a dog in a forest"),
        ("a dog in a city", "somewhere else: the meadow", "a dog in a meadow"),
        ("a crow", "crows look best in the dark, so make it night", "a crow at night"),
        ("a pug and a car", "a husky instead of the pug", "a husky and a car"),
        ("a pug and a car", "instead of the pug, a husky", "a husky and a car"),
        ("a pug and a car", "a husky instead", "a husky and a car"),
        ("a pug and a car", "replace the pug with a husky", "a husky and a car"),
        ("a bird and a car", "make the bird a hoopoe", "a hoopoe and a car"),
        ("a dog, a bird", "make the dog a husky and the bird a crow", "a husky and a crow"),
        ("two small pugs", "turn them into huskies", "two small huskies"),
        ("a hoopoe on a beach", "change the beach to a forest", "a hoopoe in a forest"),
        ("a pug and a car", "replace the pug with a husky in the snow", "a husky and a car in the snow"),
        # colours, counts, sizes
        ("a car", "blue would be better", "a blue car"),
        ("a brown car", "i said white, not brown", "a white car"),
        ("a red car above a blue car", "make the one at the bottom green", "a red car above a green car"),
        (
            "a red car and a blue flower",
            "swap the colours of the car and the flower",
            "a blue car and a red flower",
        ),
        ("a dog", "it is too small, enlarge it", "a big dog"),
        ("two pugs", "can there be three pugs?", "three pugs"),
        ("a dog and a rose", "make the dog bigger, not the rose", "a big dog and a rose"),
        ("a pink mushroom and a pug", "teal mushroom instead of pink", "a teal mushroom and a pug"),
        ("a canary above a dog", "can we have 3 canaries?", "three canaries above a dog"),
        # places
        ("a pug above a papaya", "No, next to each other", "a pug and a papaya"),
        ("a dog in front of a car", "bring the car to the front", "a car in front of a dog"),
        ("a dog in front of a car", "behind it instead", "a dog behind a car"),
        ("a robin on a taxi", "next to the taxi, not on it", "a robin and a taxi"),
        ("a dog left of a car", "switch sides", "a car left of a dog"),
        ("a dog left of a car", "other way around and in the city", "a car left of a dog in a city"),
        ("a dog and a car", "make the car blue", "a dog and a blue car"),
        ("a car", "make it orange", "an orange car"),
        ("a red car", "a green car instead", "a green car"),
        ("a hoopoe", "swap it for an orange clownfish", "a clownfish"),
        ("a car and a pug", "change the colour of the car to green", "a green car and a pug"),
        ("a red car and a pug", "change the car from red to green", "a green car and a pug"),
        ("a red car", "change it to green", "a green car"),
        ("a red car and a pug", "make the car blue and the dog bigger", "a blue car and a big pug"),
        ("a red car and a dog", "make the dog small, the car orange", "an orange car and a small dog"),
        ("a car and a dog", "make the car and the dog bigger", "a big car and a big dog"),
        ("a dog and a car", "the car should be red", "a dog and a red car"),
        ("a dog", "two of them", "two dogs"),
        ("a dog on a beach", "three dogs", "three dogs on a beach"),
        ("two dogs", "just one dog", "a dog"),
        ("a dog", "bigger", "a big dog"),
        ("a small dog", "make it bigger", "a dog"),
        ("a big dog and a car", "make the dog smaller", "a dog and a car"),
        ("a dog and a car", "make them both small", "a small dog and a small car"),
        ("a big dog", "normal size", "a dog"),
        # one of several
        ("two dogs on a beach", "make one of them big", "a dog and a big dog on a beach"),
        ("three red cars", "make one blue", "two red cars and a blue car"),
        ("two puffins at sea", "replace one puffin with a crow", "a puffin and a crow at sea"),
        ("two puffins at sea", "one should be a flamingo", "a puffin and a flamingo at sea"),
        ("two puffins", "make one of the puffins a crow and make it night", "a puffin and a crow at night"),
        ("two puffins", "one of them smaller", "a puffin and a small puffin"),
        ("a red car and a crow", "a blue car instead of the red one", "a blue car and a crow"),
        ("a dog and a red car", "make the red car yellow", "a dog and a yellow car"),
        ("a red car and a blue car", "make the red car big", "a big red car and a blue car"),
        ("three red cars", "make two of them blue", "a red car and two blue cars"),
        # one of two alike
        ("a red car and a blue car", "make the red one green", "a green car and a blue car"),
        ("a red car and a blue car", "the blue one bigger", "a red car and a big blue car"),
        ("a red car and a blue car", "remove the red one", "a blue car"),
        ("a red car and a blue car", "only the red one", "a red car"),
        ("a red car and a blue car", "the red one on the left", "a red car left of a blue car"),
        ("a big dog and a small dog", "remove the big dog", "a small dog"),
        ("a big dog and a small dog", "make the small dog black", "a big dog and a small black dog"),
        ("a red bird and a blue bird", "the blue one should be a hoopoe", "a red bird and a hoopoe"),
        ("a dog and a dog", "remove the dog", "a dog"),
        ("two dogs and a car", "one of them black", "a dog, a car and a black dog"),
        ("a dog and a car", "the dog should be a pug", "a pug and a car"),
        ("a dog and a car", "take the dog away", "a car"),
        ("a dog and a car", "the dog is too big", "a small dog and a car"),
        ("a small dog", "it is too small", "a dog"),
        ("a robin and a crow", "just the crow", "a crow"),
        ("a green car", "not green, yellow", "a yellow car"),
        ("a dog", "no, a husky", "a husky"),
        ("a dog and a bird", "I meant a hoopoe", "a dog and a hoopoe"),
        ("three dogs", "only two dogs", "two dogs"),
        # all of a name, some, more and less
        ("a dog and two cars", "both cars red", "a dog and two red cars"),
        ("a car, a dog and a bird", "all dogs small", "a car, a small dog and a bird"),
        ("a dog and a car", "both black", "a black dog and a black car"),
        ("two red birds and a blue bird", "make all three big", "two big red birds and a big blue bird"),
        ("a mallard", "two mallards, one of them big", "a mallard and a big mallard"),
        ("a puffin", "two more", "three puffins"),
        ("two dogs and a car", "one dog less", "a dog and a car"),
        ("a husky and a samoyed", "make the samoyed a husky", "two huskies"),
        ("two cars and a dog", "remove all but the dog", "a dog"),
        ("two cars and a dog", "keep the dog, remove the rest", "a dog"),
        ("a taxi and a tractor", "remove the taxi, add a pug instead", "a tractor and a pug"),
        ("a dog and a mushroom", "put the dog on the other side", "a mushroom and a dog"),
        # by place, part of a name, pronoun
        ("a dog and a mushroom", "the left one bigger", "a big dog and a mushroom"),
        ("a dog right of a car", "make the left one red", "a dog right of a red car"),
        ("a peacock butterfly in a garden", "bigger peacock", "a big peacock butterfly in a garden"),
        ("a blue tit in a garden", "put him on a sunflower", "a blue tit on a sunflower in a garden"),
        ("a robin and a red car", "put the robin on it", "a robin on a red car"),
        ("a robin and a red car", "the car behind it", "a red car behind a robin"),
        ("a sunflower", "a butterfly above it", "a butterfly above a sunflower"),
        ("a small owl", "back to normal size", "a barn owl"),
        # names that are colours, and colours in names
        ("a car and a red admiral", "make the car red", "a red car and a red admiral"),
        ("a canary and a red car", "canary left of the car", "a canary left of a red car"),
        ("a butterfly on a rose", "change rose to daisy", "a butterfly on a daisy"),
        # in other words
        ("a red car", "nah, green", "a green car"),
        ("a dog in the rain", "I changed my mind, sunny", "a dog"),
        ("a dog", "make it dark, please", "a dog at night"),
        ("a car", "make it dark blue", "a blue car"),
        ("a crow in the rain", "I want a dog as well", "a crow and a dog in the rain"),
        ("a crow", "is it possible to add a dog?", "a crow and a dog"),
        ("a yellow car", "can the car be green?", "a green car"),
        ("a crow in the rain", "turn the rain off", "a crow"),
        ("a robin", "put the owl back", "a robin and a barn owl"),
        ("a blue butterfly", "make the butterfly red and bigger", "a big red butterfly"),
        ("three dogs on a beach", "the dogs in a forest", "three dogs in a forest"),
        ("a dog and a car", "there should be two dogs", "two dogs and a car"),
        ("three dogs", "remove one", "two dogs"),
        ("a dog", "add another one", "two dogs"),
        ("three dogs on a beach", "a couple of dogs", "two dogs on a beach"),
        ("a great white shark and a fish", "remove the fish", "a great white shark"),
        ("a dog and a tiger shark", "two sharks", "a dog and two tiger sharks"),
        ("a fire engine", "make the fire truck big", "a big fire engine"),
        ("a big white dog", "give him a red car", "a big white dog and a red car"),
        ("a dog", "a little bigger", "a big dog"),
        # several replaced, and places
        ("a hoopoe and an apple", "replace everything with a dog", "a dog"),
        ("a monarch and a poppy", "get rid of the poppy and put a rose there", "a monarch and a rose"),
        (
            "a poodle and a corgi",
            "replace the poodle with a pug and the corgi with a beagle",
            "a pug and a beagle",
        ),
        (
            "a red car and a blue car",
            "make the red one yellow and the blue one white",
            "a yellow car and a white car",
        ),
        ("a dog by a lake", "make the lake a beach", "a dog on a beach"),
        ("a dog in a meadow", "no meadow, a garden", "a dog in a garden"),
        ("a dog on a beach in rain", "replace the rain with snow", "a dog on a beach in falling snow"),
        ("a dog by a lake", "add a bird in the sky", "a dog and a bird by a lake"),
        ("a dog by a lake", "add a bird in the snow", "a dog and a bird by a lake in falling snow"),
        ("a dog in fog", "clear the fog", "a dog"),
        # relations
        ("a blue bird on a red car", "put the bird next to it instead", "a blue bird and a red car"),
        ("a dog and a car", "dog on the left", "a dog left of a car"),
        ("a dog and a car on a beach", "dog on car", "a dog on a car on a beach"),
        ("a dog left of a car", "swap them", "a car left of a dog"),
        ("a dog left of a car", "move the dog to the right of the car", "a dog right of a car"),
        ("a dog on a car", "put the car on the left", "a car left of a dog"),
        ("a dog and a car", "I want the dog behind the car", "a dog behind a car"),
        ("a robin, a crow and a taxi", "put the robin on the taxi", "a robin on a taxi and a crow"),
        ("a dog in the snow", "next to a mushroom", "a dog and a mushroom in the snow"),
        ("a dog", "put it on a car", "a dog on a car"),
        ("a dog", "make the dog sit behind a red car", "a dog behind a red car"),
        ("a dog and a car", "put the dog on a mushroom", "a dog on a mushroom and a car"),
        ("a dog", "the dog behind a mushroom", "a dog behind a mushroom"),
        # places, lights, weathers
        ("a dog on a beach", "now at night", "a dog on a beach at night"),
        ("a dog on a beach", "in the snow", "a dog in the snow"),
        ("a dog on a beach", "the same, but in a forest at sunset", "a dog in a forest at sunset"),
        ("a dog", "make it snow", "a dog in falling snow"),
        ("a dog at night", "make it day", "a dog"),
        # several at once
        ("a dog", "add a taxi and make it night", "a dog and a taxi at night"),
        ("a dog and a car", "remove the car, add a taxi, and make it night", "a dog and a taxi at night"),
        ("a dog and a car", "and make the dog bigger", "a big dog and a car"),
        ("a dog", "three of them and in the snow", "three dogs in the snow"),
    ],
)
def test_changes(before: str, text: str, after: str) -> None:
    assert changed(before, text) == after


@pytest.mark.parametrize(
    ("before", "text", "kind"),
    [
        ("a butterfly on a rose", "the flower blue", "colour"),
        ("a butterfly on a rose", "make the flower blue", "colour"),
        ("two dogs", "put one on a car", "relations"),
        ("a dog", "a bigger flower", "change"),
        ("a butterfly on a rose", "the flower blue instead", "colour"),
        ("a dog", "two dogs, one big and one small", "change"),
        ("two red birds and a blue bird", "make two of them blue", "change"),
        ("two cars", "make one car red and the other blue", "change"),
        ("three cars", "one red, one blue, one green", "change"),
        ("three cars", "make them red, blue and green", "colour"),
        ("a dog on a beach", "make the sky blue", "not shown"),
        ("a dog by a lake", "add a car on a road", "settings"),
        ("a dog and a bird", "on a car", "change"),
    ],
)
def test_what_cannot_be_drawn_is_refused(before: str, text: str, kind: Kind) -> None:
    with pytest.raises(NotUnderstood) as refusal:
        changed(before, text)
    assert refusal.value.kind == kind


@pytest.mark.parametrize("text", ["remove the bird", "replace the bird with a pug", "only the bird"])
def test_of_two_alike_the_user_says_which(text: str) -> None:
    with pytest.raises(NotUnderstood) as refusal:
        changed("a red bird and a blue bird", text)
    assert (refusal.value.kind, refusal.value.nearest) == ("change", ("red bird", "blue bird"))


def test_what_was_left_out_or_read_as_another_word_is_stated() -> None:
    result = change("add a lovely pufin", read("a penguin").request)
    assert (result.omitted, result.corrected) == (("lovely",), {"pufin": "puffin"})
    new = change("a lovely pufin", read("a penguin").request)
    assert (new.is_new, new.omitted, new.corrected) == (True, ("lovely",), {"pufin": "puffin"})


def test_any_change_is_refused_or_can_be_drawn() -> None:
    rng = random.Random(4)
    beginnings = [*CHANGES["add"], *CHANGES["remove"], *CHANGES["adjust"], *CHANGES["replace"], ""]
    words = "a dog|the dog|hoopoe|two|red|on|the car|it|them|at night|behind|and|,".split("|")
    request, changes = read("a dog and a car").request, 0
    for _ in range(2000):
        text = " ".join([rng.choice(beginnings), *rng.choices(words, k=rng.randint(1, 5))])
        try:
            after = change(text, request).request
        except NotUnderstood:
            continue
        changes += 1
        assert read(write(after)).request == complete(after), text
        request = after if changes % 10 else read("a dog and a car").request
    assert changes > 100


def test_a_sunny_day_is_a_day_and_clear() -> None:
    request = change("make it a sunny day", read("a dog at night in the rain").request).request
    assert (request.light, request.weather) == ("day", "clear")


@pytest.mark.parametrize(
    ("text", "is_new"),
    [
        ("a hoopoe in the snow", True),
        ("please draw a peacock in a garden", True),
        ("a dog on the left, a car on the right", True),
        ("dog, car", True),
        ("the taxi behind the tractor", True),
        ("the dog behind the car", False),
        ("in the snow", False),
    ],
)
def test_a_prompt_that_names_things_is_a_new_request(text: str, is_new: bool) -> None:
    before = read("a dog and a car on a beach").request
    result = change(text, before)
    assert result.is_new is is_new
    if is_new:
        assert result.request == read(text).request


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("again", {"again": True}),
        ("another one, please", {"again": True}),
        ("I don't like it", {"again": True}),
        ("a different bird", {"other_reference_of": ("hoopoe",)}),
        ("Not that hoopoe again, please.", {"other_reference_of": ("hoopoe",)}),
        ("not that hoopoe", {"other_reference_of": ("hoopoe",)}),
        ("not that bird", {"other_reference_of": ("hoopoe",)}),
        ("not that bird, a different one", {"other_reference_of": ("hoopoe",)}),
        ("not that one", {"other_reference_of": ("hoopoe", "dog")}),
        ("the second was better", {"earlier": 2}),
        ("go back", {"earlier": -1}),
    ],
)
def test_what_only_the_caller_can_do_is_in_fields(text: str, expected: dict[str, object]) -> None:
    before = read("a hoopoe and a dog").request
    assert change(text, before) == Change(before, **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "text", "kind", "phrase"),
    [
        ("a hoopoe", "add an osprey", "unknown name", "osprey"),
        ("a hoopoe", "make it wear a hat", "not shown", "wear a hat"),
        ("a hoopoe", "make the hoopoe green", "colour", "green"),
        ("a hoopoe", "make it green", "colour", "green"),
        ("a robin and a blue tit", "make the robin blue", "colour", "blue"),
        ("three dogs", "add a dog", "too many of one", "4 × dog"),
        ("a robin, a crow and a taxi", "add a pug", "too many subjects", "robin, crow, taxi, pug"),
        ("a dog and a car", "make it blue", "change", "it blue"),
        ("a dog", "remove the taxi", "change", "taxi"),
        ("a dog", "remove the dog", "no subject", "dog"),
        ("a dog", "put it on the left", "relations", "it on the left"),
        ("a dog and a car", "the dog is nice", "change", "the dog is nice"),
        ("a red car and a blue car", "make the car green", "change", "the car"),
        ("a red car", "make the car red", "change", "the car red"),
        ("a dog", "foo bar", "unknown name", "foo bar"),
        ("a dog", "is the dog bigger?", "question", "is the dog bigger?"),
    ],
)
def test_refusals(before: str, text: str, kind: Kind, phrase: str) -> None:
    with pytest.raises(NotUnderstood) as refusal:
        changed(before, text)
    assert (refusal.value.kind, refusal.value.phrase) == (kind, phrase)


@pytest.mark.parametrize("text", ["", "  ", "!?", "not", "would", "so"])
def test_text_without_a_change_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood):
        change(text, read("a dog").request)
