"""Words of a change, in lower case, in the form that the operations read: "remove the dog".

Each rule is of one turn of phrase. Words of none stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

from pleinair.tools.pocket.catalogue.language.arrangement import find
from pleinair.tools.pocket.catalogue.language.changes.adjustments import Words, without_step
from pleinair.tools.pocket.catalogue.language.lexicon import CHANGES, MARKS, begins, scan
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request

_WISHES = ("should", "must", "shall", "could", "can", "may", "might", "will", "would")
_AWAY, _OFF = ("away", "out", "off"), ("turn", "switch")
_RESTS = (["the", "rest"], ["everything", "else"], ["the", "others"], ["all", "others"])
_VERBS = ("remove", "delete", "drop", "add", "only")
_STATED = frozenset(("name", "kind", "colour", "size", "setting"))
_GONE = frozenset(("go", "gone", "disappear", "vanish"))
_ENDS = (*_GONE, "to", "has", "have", "should", "must", "needs", "can", "be", "is")
_COMMENTS = ("its", "it", "because", "since", "thats", "that", "this", "they", "he", "she")
_SIDES = ("left", "right", "top", "bottom", "front", "back")
_THERE = [[*words.split()] for words in ("there should be", "can there be", "could there be", "can we have")]
_PLACED = ("relation", "side", "pronoun")
_EACH_OTHER = ("next to each other", "beside each other", "side by side", "next to one another")
_OF_LIGHT = (["it"], ["is"], ["its"], ["and"], ["outside"])  # before "dark"
_MORE, _LESS = ("more", "extra", "additional"), ("less", "fewer")


def reworded(words: Words) -> Words:
    """Return the words of a whole message in other words, where a rule applies."""
    for rule in _RULES:
        words = rule(words)
    return words


def _repeated(words: Words) -> Words:
    """Return "replace A with B and C with D" as "replace A with B and replace C with D"."""
    if not words or words[0] not in CHANGES["replace"]:
        return words
    repeated: Words = []
    for at, word in enumerate(words):
        clause = [*takewhile(lambda other: other not in (*MARKS, "and"), words[at + 1 :])]
        states_all = clause[:1] == words[:1] or {"with", "to", "into"}.isdisjoint(clause)
        repeated += [word] if word != "and" or states_all else [word, words[0]]
    return repeated


def _without_rest(words: Words) -> Words:
    """Return "keep the dog, remove the rest" as "only the dog"."""
    at = next((at for at in range(len(words) - 1) if words[at : at + 2] in _RESTS), 0)
    if at < 2 or words[0] not in ("keep", "leave"):
        return words
    end = next((end for end in range(at) if words[end] in (*MARKS, "and", "but")), at)
    return ["only", *words[1:end]]


def _removed(words: Words) -> Words:
    """Return "take the dog away" and "turn the rain off" as "remove the dog"."""
    begin = next((at for at, word in enumerate(words) if word in ("take", "put", *_OFF)), len(words))
    end = next((at for at in range(begin + 1, len(words)) if words[at] in _AWAY), 0)
    is_off = words[begin : begin + 1] and (words[begin] not in _OFF or words[end] == "off")
    if not end or not is_off or "on" in words[begin:end]:
        return words
    return [*words[:begin], "remove", *words[begin + 1 : end], *words[end + 1 :]]


def _brought_back(words: Words) -> Words:
    """Return "put the owl back" as "add the owl"."""
    is_back = words[:1] in (["put"], ["bring"]) and words[-1:] == ["back"]
    return ["add", *words[1:-1]] if is_back else words


def _swapped(words: Words) -> Words:
    """Return "put the dog on the other side" as "swap them"."""
    is_other = words[-3:] == ["the", "other", "side"] and words[-4:-3] in (["on"], ["to"])
    return ["swap", "them"] if is_other else words


def _made(words: Words) -> Words:
    """Return "the dog should be a pug" and "can the dog be a pug" as "make the dog a pug"."""
    at = words.index("be") if "be" in words else 0
    if words[:1] == ["the"] and at > 1 and words[at - 1] in _WISHES:
        return ["make", *words[: at - 1], *words[at + 1 :]]
    if words[:1] and words[0] in _WISHES and words[1:2] in (["the"], ["it"]) and at > 1:
        return ["make", *words[1:at], *words[at + 1 :]]
    return words


def _added(words: Words) -> Words:
    """Return "a dog too" and "a dog as well" as "add a dog"."""
    said = [word for word in words if word not in MARKS]
    length = 1 if said[-1:] in (["too"], ["also"]) else 2 if said[-2:] == ["as", "well"] else 0
    names = [item for item in scan(" ".join(said))[0] if item.role in ("name", "kind")]
    polite = begins(said, CHANGES["polite"])
    while length and polite:
        said, polite = said[polite:], begins(said[polite:], CHANGES["polite"])
    is_thing = bool(names) and (said[0] in ("a", "an") or _roles(said[:-length]) <= {"name", "kind"})
    return ["add", *said[:-length]] if length and is_thing else words


def _without_comment(words: Words) -> Words:
    """Leave out why something is asked for: "moths fly at night, so make it night"."""
    so = words.index("so") if "so" in words else 0
    if so and begins(words[so + 1 :], CHANGES["adjust"]):
        return words[so + 1 :]
    for at in (at for at, word in enumerate(words) if at and word in MARKS):
        before, after = words[:at], words[at + 1 :]
        if _is_comment(after):
            return before
        if _is_comment(before) and after:
            return after
    return words


def _is_comment(words: Words) -> bool:
    """Return whether words only say how something is: "it's distracting", "it is too dark"."""
    says = _roles(words) | ({"unknown"} if "looks" in words else set())
    steps = {*_STATED, "relation", "side", "not shown"}
    is_said = bool({"unknown", "harmless"} & says) and says.isdisjoint(steps) and not without_step(words)[1]
    return words[:1] != [] and words[0] in _COMMENTS and is_said


def _without_denial(words: Words) -> Words:
    """Return "a pug, not a husky" as "instead of a husky, a pug", and "left, not right" as "left"."""
    at = words.index("not") if "not" in words else 0
    if not at:
        return words
    end = next((end for end in range(at, len(words)) if words[end] in MARKS), len(words))
    said, denied = words[: at - (words[at - 1] in MARKS)], words[at + 1 : end]
    says_both = all(_roles(part) & {*_STATED, *_PLACED} for part in (said, denied))
    if not says_both or without_step(words[at:end])[1]:
        return words
    if {said[0], *denied[:1]} <= {"a", "an"}:
        return ["instead", "of", *denied, ",", *said, *words[end:]]
    return [*said, *words[end:]]


def _preferred(words: Words) -> Words:
    """Return "a pug would be nicer" as "a pug instead", "rather than" as "instead of"."""
    text = f" {' '.join(words)} ".replace(" rather than ", " instead of ").split()
    at = text.index("would") if "would" in text else 0
    if not at or text[at + 1 : at + 2] == ["you"] or _STATED.isdisjoint(_roles(text[:at])):
        return text
    said = text[2:at] if text[:2] == ["i", "think"] else text[:at]
    return said if _roles(said).isdisjoint({"name", "kind"}) else [*said, "instead"]


def _gone(words: Words) -> Words:
    """Return "the dog has to go" and "make the dog disappear" as "remove the dog"."""
    length = len(words)
    while length and words[length - 1] in _ENDS:
        length -= 1
    said = words[1:length] if words[:1] in (["make"], ["let"]) else words[:length]
    is_gone = not _GONE.isdisjoint(words[length:])
    return ["remove", *said] if is_gone and said[:1] == ["the"] else words


def _enough(words: Words) -> Words:
    """Return "one dog is enough" as "one dog"."""
    return words[:-2] if words[-2:] == ["is", "enough"] else words


def _resized_once(words: Words) -> Words:
    """Return "the owl is too small, enlarge it" as "the owl is too small"."""
    at = next((at for at, word in enumerate(words) if word in MARKS), 0)
    said, step = without_step(words[at + 1 :])
    says_no_more = {*said} <= {"it", "make", "them", "so", "and", "please", "a", "bit"}
    return words[:at] if at and step and says_no_more and without_step(words[:at])[1] else words


def _beside_each_other(words: Words) -> Words:
    """Return "next to each other" as "beside it"."""
    text = " ".join(word for word in words if word not in MARKS)
    return ["beside", "it"] if text.removeprefix("no ").removesuffix(" please") in _EACH_OTHER else words


def _darkened(words: Words) -> Words:
    """Return "make it dark" as "make it night"; a dark blue is a colour."""
    length = len(words)
    while length and words[length - 1] in (*MARKS, "please"):
        length -= 1
    is_light = words[length - 1 : length] == ["dark"] and words[: length - 1][-1:] in ([], *_OF_LIGHT)
    return [*words[: length - 1], "night", *words[length:]] if is_light else words


def _counted_on(words: Words) -> Words:
    """Return "a second dog" as "one more dog"."""
    for at in range(len(words) - 2):
        if words[at] == "a" and words[at + 1] in ("second", "third"):
            return [*words[:at], "one", "more", *words[at + 2 :]]
    return words


def _at_sides(words: Words) -> Words:
    """Return "the one on the left" as "the left one"."""
    for at in range(len(words) - 4):
        is_place = words[at + 2] in ("on", "at", "to", "in") and words[at + 4] in _SIDES
        if words[at : at + 2] == ["the", "one"] and words[at + 3] == "the" and is_place:
            return [*words[:at], "the", words[at + 4], "one", *words[at + 5 :]]
    return words


def _in_depth(words: Words) -> Words:
    """Return "bring the dog to the front" as "put the dog in front of it"."""
    is_moved = words[:1] and words[0] in ("bring", "put", "move", "send") and words[-2:-1] == ["the"]
    places = {"front": "in front of", "foreground": "in front of", "back": "behind", "background": "behind"}
    if not is_moved or words[-1] not in places or words[-3] not in ("to", "in", "into", "at"):
        return words
    return ["put", *words[1:-3], *places[words[-1]].split(), "it"]


def _corrected(words: Words) -> Words:
    """Return "no, a husky" and "I meant a husky" as "a husky instead", "no dog, a pug" as "a pug for it"."""
    comma = words.index(",") if "," in words else 0
    if words[:1] == ["no"] and comma > 1 and words[comma + 1 : comma + 2] in (["a"], ["an"], ["the"]):
        return ["instead", "of", *words[1:]]
    if words[:2] in (["not", "a"], ["not", "an"]) and words[comma + 1 : comma + 2] in (["a"], ["an"]):
        return ["instead", "of", *words[1:]]
    if words[:1] == ["not"] and comma and not _STATED.isdisjoint(_roles(words[comma:])):
        words = ["no", *words[comma:]]
    is_other = words[:1] == ["actually"] and [w for w in words[1:] if w not in MARKS][:1] in (["a"], ["an"])
    plain = [word for word in words if word not in MARKS]  # "no, I meant a husky"
    length = begins(plain, CHANGES["corrections"]) or int(is_other or words[:2] == ["no", ","])
    return [*plain[length:], "instead"] if length else words


_RULES: tuple[Callable[[Words], Words], ...] = (
    _without_comment,
    _without_denial,
    _preferred,
    _at_sides,
    _beside_each_other,
    _darkened,
    _counted_on,
    _repeated,
    _without_rest,
    _removed,
    _gone,
    _enough,
    _resized_once,
    _brought_back,
    _swapped,
    _in_depth,
    _made,
    _added,
    _corrected,
)


def _roles(words: Words) -> set[str]:
    return {item.role for item in scan(" ".join(words))[0]}


def _names_existing(words: Words, request: Request) -> bool:
    """Return whether words are a number and the name of a subject: "two dogs"."""
    items = [item for item in scan(" ".join(words))[0] if item.role != "article"]
    names = [Mention(item.word.value) for item in items[1:] if item.role in ("name", "kind")]
    is_counted = len(items) == 2 and items[0].role == "number" and bool(names)
    return is_counted and find(names[0], request.mentions) is not None


def _with_name(words: Words, name: str) -> Words:
    """Return "remove one" as "remove one of the dogs", "add another one" as "add another dog"."""
    items = scan(" ".join(words[1:]))[0]
    if [item.role for item in items] == ["number"] and words[0] in CHANGES["remove"]:
        return [*words, "of", "the", name]
    copies = ("one", "a second one", "another one", "another", "a second", "two", "one more")
    if " ".join(words[1:]) not in copies:
        return words
    number = words[1] if words[1] in ("two", "one") else "a"
    return [words[0], number, name]


def counted(words: Words, request: Request) -> Words:
    """Return "two more" as "add two dogs", "one dog less" and "fewer dogs" as "remove one of the dogs"."""
    several = [mention for mention in request.mentions if mention.count > 1]
    if len(several) == 1 and "of them" in " ".join(words):  # "only one of them"
        words = f" {' '.join(words)} ".replace(" of them ", f" of the {several[0].name} ").split()
    if words[:3] in _THERE and _names_existing(words[3:], request):
        return words[3:]
    if words[1:] and words[0] in _VERBS and len(request.mentions) == 1:
        return _with_name(words, request.mentions[0].name)
    step = next((word for word in words if word in (*_MORE, *_LESS)), "")
    items = scan(" ".join(word for word in words if word != step))[0]
    roles = [item.role for item in items if item.role not in ("filler", "article")]
    if not step or [role for role in roles if role != "number"] not in ([], ["name"], ["kind"]) or not roles:
        return words
    number = next((item.text for item in items if item.role == "number"), "one")
    named = [Mention(item.word.value) for item in items if item.role in ("name", "kind")]
    at = find(named[0], request.mentions) if named else 0 if len(request.mentions) == 1 else None
    if at is None:
        return words
    name = (named[0] if named else request.mentions[at]).name
    return ["add", number, name] if step in _MORE else ["remove", number, "of", "the", name]
