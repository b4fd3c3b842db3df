"""Options that people type into prompts, read by rules and never by a model.

Read are Midjourney's and Stable Diffusion's spellings (`--ar 16:9`, `--no text`, `(wren:1.2)`, `Negative
prompt: …`), sizes, ratios, formats, seeds and a number of images in words. What is quoted, and what may be
part of the scene ("a 4x4 truck", "(rare) wren", "a town square", "a clock at 10:30"), stays. A prompt without
an option comes back unchanged. Not covered: other languages than English, prompt editing (`[a:b:0.5]`), words
that only a model can understand ("a wide image").

Placeholders of input images (`<|image_1|>`) are no options: they stay where they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, cast

from pleinair.tools.types import BadInput, Value

# of an image in OmniGen's prompts, also without its frame
PLACEHOLDERS = re.compile(r"(?:<img>\s*)?<\|image_(\d+)\|>(?:\s*</img>)?")

OptionName = Literal[
    "size",
    "ratio",
    "seed",
    "num_images",
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "weight",
    "unsupported",
]


class PromptOption(Value):
    """One option in a prompt: its text as typed, its value as read, and whether the request uses it."""

    text: str
    option: OptionName
    value: str = ""  # "1024x768", "16:9", "7", the words to avoid; of a weight the words inside
    used: bool = True
    note: str = ""  # why it is not used, or what became of it

    @property
    def sentence(self) -> str:
        """Return what became of the option, for people."""
        return f"“{self.text}”: {self.note or f'{self.option} {self.value}'}"


class ParsedPrompt(Value):
    """A prompt without its options, and the options."""

    prompt: str
    options: tuple[PromptOption, ...] = ()

    def last(self, name: OptionName) -> PromptOption | None:
        """Return the last option of a name, which applies; None if there is none."""
        return next((option for option in reversed(self.options) if option.option == name), None)


def parse_prompt_options(text: str) -> ParsedPrompt:
    """Return a prompt without the options in it, and the options; the same text gives the same result."""
    options: list[PromptOption] = []
    for pattern, read in _RULES:
        text = _without(text, pattern, read, options)
    return ParsedPrompt(prompt=text.strip() if options else text, options=tuple(options))


_Read = Callable[[re.Match[str], str], Iterable[PromptOption]]  # a match, and the text with its quotations

_HIDDEN = "\ue000"  # a private character in place of each quoted one
_QUOTED = re.compile(
    r"\"[^\"\n]*\"|“[^”\n]*”|„[^“”\n]*[“”]|«[^»\n]*»|`[^`\n]*`|(?<!\w)'[^'\n]+'(?!\w)|(?<!\w)‘[^’\n]+’(?!\w)"
)
_NUMBERS = {
    word: number
    for number, word in enumerate("one two three four five six seven eight nine ten eleven twelve".split(), 1)
} | {"a couple of": 2}
# followed by nothing that it could be an adjective of
_END = r"(?=\s*(?:$|[,.;)\n]|--))"
_TRAILER = re.compile(r"(?:^|\s)Steps: \d{1,5}, [A-Z][\w ]{0,30}: [^\n]*(?:\n|$)")
_TRAILER_PAIR = re.compile(r"\b(Seed|Size): (\d{1,19}(?:x\d{1,5})?)\b")
_NEGATIVE = re.compile(
    r"(?:^|(?<=[\s.,;|]))(?:\|\s*)?negative[ _]prompt\s*:[ \t]*(?P<value>(?:(?!\s(?:--|—)\w)[^\n])+)",
    re.IGNORECASE,
)
_FLAG = r"(?:^|(?<=\s))--"
_LONG_DASH = r"(?:^|(?<=\s))(?:--|—|–)"  # as telephones write two hyphens
_ANY_DASH = r"(?:^|(?<=\s))(?:--?|—|–)"
_RATIO_NAME = r"(?:ar|aspect(?:[- ]ratio)?)"
_NUMBER_NAME = (
    r"(?P<name>seed|width|height|w|h|num[-_]images|steps|num[-_]inference[-_]steps"
    r"|cfg|guidance|guidance[-_]scale)"
)
_RATIO_FLAG = re.compile(
    _ANY_DASH
    + _RATIO_NAME
    + r"[= ]?\s*(?P<value>\d{1,4}(?:\.\d{1,3})?\s?[:：x/]\s?\d{1,4}(?:\.\d{1,3})?)(?![\w:])",
    re.IGNORECASE,
)
_NO_FLAG = re.compile(
    _FLAG + r"(?:no|neg|negative|negative[-_]prompt)[= ]\s*(?P<value>(?:(?!\s(?:--|—)\w)[^\n])+)",
    re.IGNORECASE,
)
_NO_WORD_FLAG = re.compile(_FLAG + r"no-(?P<value>[^\W\d_][\w-]*)(?=\s*$|\s+--)", re.IGNORECASE)
_NUMBER_FLAG = re.compile(
    _ANY_DASH + _NUMBER_NAME + r"[= ]\s*(?P<value>-?\d{1,30}(?:\.\d{1,9})?)(?![\w:.])", re.IGNORECASE
)
_SIZE_FLAG = re.compile(_ANY_DASH + r"size[= ]\s*(?P<w>\d{2,5})\s?[x×*]\s?(?P<h>\d{2,5})\b", re.IGNORECASE)
_UNREAD_FLAG = re.compile(
    _FLAG + rf"(?:{_RATIO_NAME}|size|{_NUMBER_NAME})(?![\w-])(?:[= ]\s*[^\s,;]*\d[^\s,;]*)?", re.IGNORECASE
)
_UNSUPPORTED_FLAG = re.compile(
    _LONG_DASH
    + r"(?:(?:v|version|stylize|s|chaos|c|q|quality|iw|cw|sw|ow|niji|weird|repeat|r|stop|exp|sampler)"
    r"[= ]\s*\.?\w+(?:\.\d+)?(?!\w)|(?:style|p|profile|personalize|cref|sref|oref|sampler)[= ]\s*[^\s-]\S*"
    r"|(?:tile|niji|hd|uplight|upbeta|upanime|test|testp|creative|fast|relax|turbo|raw|stealth|public|draft)\b(?!-))",
    re.IGNORECASE,
)
_LORA = re.compile(r"<(?:lora|lyco|hypernet|embedding):[^<>\n]{1,200}>")
_WEIGHT = re.compile(
    r"(?<!\w)\({1,6}(?P<value>[^()\[\]:\n]*[^\W\d_][^()\[\]:\n]*?)(?<!\d)\s?:\s?(?:[0-2](?:\.\d{1,3})?|\.\d{1,3})\){1,6}"
)
_SUFFIX_WEIGHT = re.compile(r"(?<!\w)\((?P<value>[^()\[\]\n]+)\)(?:[0-2]\.\d+|\++)(?=[\s,.;]|$)")
_EMPHASIS = re.compile(r"(?<![\w(])\({2,6}(?P<value>[^()\n]+)\){2,6}(?![\w)(])")
_LESS = re.compile(r"(?<![\w\[])\[{1,6}(?P<value>[^\W\d_][^\[\]():|\n\d]*[^\W\d_])\]{1,6}(?![\w(\[:])")
_MULTI = re.compile(r"(?<=[^\W\d_])::-?\d{1,2}(?:\.\d+)?(?=[\s,.;]|$)")
_AGAINST = re.compile(  # a negative weight of one part among others
    r"(?:(?<=::\d)|(?<=::\d\.\d)|(?<=,))\s+(?P<value>[^:,\n]+)::-\d{0,2}(?:\.\d+)?(?=[\s,.;]|$)"
)
_NUMBER = r"(?P<number>\d{1,4}|" + "|".join(_NUMBERS) + r") (?:different |separate |new )?"
_COUNT = re.compile(
    r"^(?P<before>\s*(?:(?:can|could|would|will) you )?(?:please[, ]+)?"
    r"(?:(?:draw|paint|make|generate|create|show|give|render|i want|i need|i['’]d like|i would like)"
    r"(?: me| us)? )?)" + _NUMBER + r"(?P<noun>pictures|images|photos|photographs|pics|renders|versions"
    r"|variations|variants) of (?=\S)",
    re.IGNORECASE,
)
_LAST_COUNT = re.compile(
    r"(?<=[,;.])\s*(?:in )?" + _NUMBER + r"(?P<noun>versions|variations|variants|images|pictures)"
    r"(?:,? please)?[.!]?\s*$",
    re.IGNORECASE,
)
_SEED = re.compile(
    r"(?:(?:^|(?<=[,;]))\s*(?:use )?|(?<=\s)(?:with|using) (?:the |a )?)seed\s?[:=]?\s?(?P<value>\d{1,19})"
    + _END
    + r"|(?<=\s)seed\s?[:=]\s?(?P<value2>\d{1,19})"
    + _END,
    re.IGNORECASE,
)
_LABEL = re.compile(r"^\s*(?:/imagine(?: prompt:?)?|(?:positive )?prompt:)\s+(?=\S)", re.IGNORECASE)
# several images are the subject of one: "two photos of a wren on a wall"
_ONE_IMAGE = re.compile(
    r"\b(collage|grid|mosaic|side by side|next to each other|walls?|gallery|albums?|triptych|diptych"
    r"|frames?|framed|hanging|pinned|glued|desks?|tables?|fridge|mantelpiece|shelf|shelves|newspaper|magazine|polaroids?)\b",
    re.IGNORECASE,
)
_SIZE = re.compile(
    r"(?:^|(?<=[\s,;(]))(?:(?:at|in|with|size|resolution)\s*:?\s+)?(?:a (?:size|resolution) of )?"
    r"(?:(?P<w>\d{3,4})\s?[x×*]\s?(?P<h>\d{3,4})(?:\s?(?:px|pixels?))?"
    r"|(?P<w2>\d{2,4})\s?[x×*]\s?(?P<h2>\d{2,4})\s?(?:px|pixels?))" + _END
)
_ANY_RATIO = (
    "(?P<value>1:1|2:1|1:2|4:3|3:4|3:2|2:3|5:4|4:5|7:5|5:7|16:9|9:16|16:10|10:16|21:9|9:21|18:9|9:18)"
)
_SCREEN_RATIO = "(?P<value>16:9|9:16|16:10|10:16|21:9|9:21)"  # no score and no scale of a map
_NAMED_RATIO = re.compile(
    r"(?:^|(?<=[\s,;(]))(?:(?:in|at|with)\s+)?(?:an?\s+)?(?:(?:aspect[- ])?ratio\s*(?:of|:)?\s*"
    + _ANY_RATIO
    + r"(?![\d:])"
    r"|" + _ANY_RATIO.replace("value", "value2") + r"\s+(?:format|(?:aspect[- ])?ratio|aspect))" + _END,
    re.IGNORECASE,
)
_PLAIN_RATIO = re.compile(r"(?:^|(?<=[\s,;(]))(?:(?:in|at)\s+)?" + _SCREEN_RATIO + r"(?![\d:])" + _END)
_LISTED_RATIO = re.compile(r"(?<=,)\s*" + _ANY_RATIO + r"(?![\d:])" + _END)
_GAME = re.compile(
    r"\b(scores?|scoreboard|won|wins?|lost|match|odds|scale|model|clock|chapter|verse)\b", re.IGNORECASE
)
_TIME = re.compile(r"\b(?:at|by|until|till|from|to|before|after|around|about)\s+\d{1,2}:\d\d$", re.IGNORECASE)
_FORMATS = {
    **{"portrait": "2:3", "landscape": "3:2", "square": "1:1"},
    **{"vertical": "2:3", "horizontal": "3:2", "widescreen": "16:9"},
}
_FORMAT = re.compile(
    r"(?:^|(?<=[\s,;(]))(?:(?:in|as)\s+)?(?:an?\s+(?=\w+[- ]\w+" + _END + "))?"
    r"(?P<value>" + "|".join(_FORMATS) + r")[- ](?:format|orientation|mode)\b"
    r"(?! (?:of|book|books|lens|camera))",
    re.IGNORECASE,
)
_SQUARE = re.compile(r"(?<=,)\s*(?P<value>square)" + _END, re.IGNORECASE)


def _without(text: str, pattern: re.Pattern[str], read: _Read, options: list[PromptOption]) -> str:
    """Return a text without the matches of a rule, whose options are added to `options`."""
    parts, end = [""], 0
    for match in pattern.finditer(_QUOTED.sub(lambda quoted: _HIDDEN * len(quoted[0]), text)):
        if not (added := list(read(match, text))):
            continue
        options += added
        parts[-1] += text[end : match.start()]
        end = match.end()
        if added[0].option == "weight" or pattern is _COUNT:
            parts[-1] += added[0].value if added[0].option == "weight" else _singular(match, text)
        else:
            parts.append("")
    parts[-1] += text[end:]
    return _joined(parts) if end else text


def _joined(parts: list[str]) -> str:
    """Join the texts around options; a comma or space beside an option goes with it."""
    text = parts[0]
    for part in parts[1:]:
        left, right = text.rstrip(" \t,;"), part.lstrip(" \t")
        if right[:1] in (",", ";", "."):
            right = right if left else right[1:].lstrip()
            text = left + right
        elif right.strip():
            comma = "," if text.rstrip(" \t").endswith(",") and left else ""
            gap = " " if left and not left.endswith("\n") and not right.startswith("\n") else ""
            text = left + comma + gap + right
        else:
            text = left + right
    return text


def _one(name: OptionName, note: str = "") -> _Read:
    """Return a reader of one option whose value is the group `value`, or nothing."""

    def read(match: re.Match[str], text: str) -> Iterable[PromptOption]:
        value = _group(match, text, "value", "value2").strip(" \t,;\"'")
        yield _option(match, text, name, value, note)

    return read


def _option(match: re.Match[str], text: str, name: OptionName, value: str, note: str = "") -> PromptOption:
    """Return an option as typed; one with a note is not used."""
    typed = text[match.start() : match.end()].strip(" \t\n,;")
    return PromptOption(text=typed, option=name, value=value, used=not note, note=note)


def _group(match: re.Match[str], text: str, *names: str) -> str:
    """Return the first group that took part in a match, as it is in the text; "" without one."""
    spans = [match.span(name) for name in names if name in match.re.groupindex]
    return next((text[start:end] for start, end in spans if start >= 0), "")


def _read_trailer(match: re.Match[str], text: str) -> Iterable[PromptOption]:
    """Read the line that AUTOMATIC1111 and this program write into images: its seed and its size."""
    note = "the settings of another program; only its seed and size are used"
    yield (line := _option(match, text, "unsupported", "", note))
    for name, value in _TRAILER_PAIR.findall(line.text):
        if name == "Seed" or "x" in value:
            option: OptionName = "seed" if name == "Seed" else "size"
            yield PromptOption(text=f"{name}: {value}", option=option, value=value)


def _read_ratio(match: re.Match[str], text: str) -> Iterable[PromptOption]:
    value = re.sub(r"[x/：]", ":", re.sub(r"\s", "", _group(match, text, "value", "value2").lower()))
    yield _option(match, text, "ratio", value)


def _read_scene_ratio(match: re.Match[str], text: str) -> Iterable[PromptOption]:
    is_time = _GAME.search(text) or _TIME.search(text[: match.end()])
    return [] if is_time else _read_ratio(match, text)


def _read_format(match: re.Match[str], text: str) -> Iterable[PromptOption]:
    yield _option(match, text, "ratio", _FORMATS[match["value"].lower()])


def _read_size(match: re.Match[str], text: str) -> Iterable[PromptOption]:
    value = f"{_group(match, text, 'w', 'w2')}x{_group(match, text, 'h', 'h2')}"
    yield _option(match, text, "size", value)


def _read_number(match: re.Match[str], text: str) -> Iterable[PromptOption]:
    """Read a flag of this program or of another with the same meaning; one side is a size with a gap."""
    name, value = match["name"].lower().replace("_", "-"), match["value"]
    if name in ("width", "w"):
        yield _option(match, text, "size", f"{value}x")
    elif name in ("height", "h"):
        yield _option(match, text, "size", f"x{value}")
    elif name == "seed" and value.startswith("-"):
        yield _option(match, text, "seed", value, "the seed is random without it")
    else:
        yield _option(match, text, cast(OptionName, _NUMBER_FLAGS.get(name, name.replace("-", "_"))), value)


def _read_count(match: re.Match[str], text: str) -> Iterable[PromptOption]:
    word = match["number"].lower()
    number = _NUMBERS.get(word) or int(word)
    typed = text[match.start("number") : match.end("noun")]
    if number > 1 and not _ONE_IMAGE.search(text):
        yield PromptOption(text=typed, option="num_images", value=str(number))


def _singular(match: re.Match[str], text: str) -> str:
    """Return the words before a number of images, and one image of them; versions are of nothing."""
    noun = match["noun"].lower().removesuffix("s")
    if noun in ("version", "variation", "variant"):
        return match["before"]
    return f"{match['before']}{'an' if noun == 'image' else 'a'} {noun} of "


_NUMBER_FLAGS = {"steps": "num_inference_steps", "cfg": "guidance_scale", "guidance": "guidance_scale"}
_WEIGHTS = "weights are not supported; the words stay"
_OTHERS = "not an option of this program; left out"
_RULES: tuple[tuple[re.Pattern[str], _Read], ...] = (
    (_TRAILER, _read_trailer),
    (_NEGATIVE, _one("negative_prompt")),
    (_RATIO_FLAG, _read_ratio),
    (_SIZE_FLAG, _read_size),
    (_NUMBER_FLAG, _read_number),
    (_UNSUPPORTED_FLAG, _one("unsupported", _OTHERS)),
    (_NO_WORD_FLAG, _one("negative_prompt")),
    (_NO_FLAG, _one("negative_prompt")),
    (_UNREAD_FLAG, _one("unsupported", "its value cannot be read; left out")),
    (_LABEL, _one("unsupported", "a label; left out")),
    (_LORA, _one("unsupported", _OTHERS)),
    *((weight, _one("weight", _WEIGHTS)) for weight in (_WEIGHT, _WEIGHT, _SUFFIX_WEIGHT, _EMPHASIS, _LESS)),
    (_AGAINST, _one("negative_prompt")),
    (_MULTI, _one("unsupported", "weights are not supported")),
    (_COUNT, _read_count),
    (_LAST_COUNT, _read_count),
    (_SEED, _one("seed")),
    (_FORMAT, _read_format),
    (_SQUARE, _read_format),
    (_NAMED_RATIO, _read_scene_ratio),
    (_PLAIN_RATIO, _read_scene_ratio),
    (_LISTED_RATIO, _read_scene_ratio),
    (_SIZE, _read_size),
)


def image_numbers(prompt: str) -> set[int]:
    """Return the numbers of the images that a prompt names by placeholders, with `<img>` or without."""
    return {int(number) for number in PLACEHOLDERS.findall(prompt)}


def without_placeholders(prompt: str) -> str:
    """Return a prompt without its placeholders, such as a query that is embedded as text."""
    return " ".join(PLACEHOLDERS.sub(" ", prompt).split())


def renumbered(prompt: str, numbers: Mapping[int, int]) -> str:
    """Return a prompt whose placeholders have other numbers, without those that `numbers` does not have.

    Placeholders keep their form, with `<img>` or without.
    """

    def changed(match: re.Match[str]) -> str:
        number = numbers.get(int(match[1]))
        return "" if number is None else match[0].replace(f"_{match[1]}|", f"_{number}|")

    text = PLACEHOLDERS.sub(changed, prompt)
    return text if image_numbers(prompt) <= numbers.keys() else " ".join(text.split())


def check_placeholders(prompt: str, count: int) -> None:
    """Raise `BadInput` for a prompt that names an image beyond the `count` images that come with it."""
    if missing := sorted(image_numbers(prompt) - set(range(1, count + 1))):
        name = f"<|image_{missing[0]}|>"
        raise BadInput(
            f"prompt: {name} names an image that does not exist; {count or 'no'} input "
            f"{'image comes' if count == 1 else 'images come'} with it",
            "Number the input images from 1, in their order.",
            field="prompt",
        )
