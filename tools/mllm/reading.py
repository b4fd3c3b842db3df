"""Reading of a model's reply: the one JSON value in it, whatever the model or its server wrapped around it.

Tolerant about wrapping: thinking before the answer, sentences, Markdown fences, a name around the object,
several forms of tool calls, Python's or JavaScript's spelling of JSON. Never about content: nothing is
completed, guessed or chosen between, and what ends before its last bracket is no answer. Every step takes
time linear in the text. Not covered: answers in YAML, in tables, or as a call in Python.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from pleinair.tools.errors import EmptyAnswer
from pleinair.tools.types import Refused, Value

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

# Marks at the end of a model's thinking: of DeepSeek, Qwen and most others; Mistral, Kimi, Cohere, MedGemma,
# Gemma; OpenThinker; Apriel; gpt-oss, whose servers also leave the words of its marks without their brackets.
_THOUGHT_ENDS = re.compile(
    r"</(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad|inner_monologue)>"
    r"|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|\[BEGIN FINAL RESPONSE\]"
    r"|<\|END_THINKING\|>|<unused95>|<channel\|>|<\|channel\|>\s*(?:final|commentary)\b(?:[^<{]|<\|constrain\|>)*+<\|message\|>"
    r"|assistantfinal",
    re.IGNORECASE,
)
_THOUGHT_STARTS = re.compile(
    r"<(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad|inner_monologue)>"
    r"|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|START_THINKING\|>|<unused94>|<\|channel\|?>\s*(?:analysis|thought|commentary)|\Aanalysis(?=[A-Z])",
    re.IGNORECASE,
)
_THINKING_PARTS = ("thinking", "reasoning", "reasoning_content")  # types of content parts

_STRING = r'"(?:[^"\\]|\\.)*+(?:"|\Z)'
_OTHER_STRING = r"(?<![\w\"'])'(?:[^'\\]|\\.)*+(?:'|\Z)|" + "|".join(
    rf"{opening}(?:[^{closing}\\]|\\.)*+(?:{closing}|\Z)" for opening, closing in ("“”", "‘’", "«»", "``")
)
_COMMENT = r"//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/|\Z)|#[^\n]*"
_OUTSIDE = re.compile(r"\{|\[(?=\s*[\[{])")  # where a JSON value may begin in prose
_INSIDE = re.compile(rf"[{{}}\[\]]|{_STRING}|{_OTHER_STRING}", re.DOTALL)
_SPELLINGS = re.compile(
    rf"{_STRING}|(?P<quoted>{_OTHER_STRING})|(?P<comment>{_COMMENT})"
    r"|(?P<key>[A-Za-z_]\w*+)(?=\s*[:：])|(?P<word>(?i:true|false|none|null|yes|no|undefined))\b|(?P<wide>[：，])",
    re.DOTALL,
)
_COMMAS = re.compile(rf"{_STRING}|,(?=\s*[}}\]])", re.DOTALL)
_LIKE_JSON = re.compile(r"\{\s*(?:[\"'“‘«`}]|[A-Za-z_]\w*\s*[:：])|\[\s*[\[{\"']")
_FENCED = re.compile(r"```(?:[a-z0-9]+(?=\s))?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]{2,}")
_MARKS = re.compile(r"```\w*|<[^<>\s]{1,40}>|\[/?[A-Z_]+\]")
# Arguments of calls as Qwen3-Coder, MiniMax and GLM write them, and the names of their tools.
_PARAMETER = re.compile(
    r"<(?:parameter=|parameter name=\"|arg_key>)(\w+)(?:\"?>|</arg_key>\s*<arg_value>)"
    r"((?:(?!</?(?:parameter|arg_)).)*+)</(?:parameter|arg_value)>",
    re.DOTALL,
)
_TOOL = re.compile(r"<(?:function=|invoke name=\"|tool_call>)\s*+([\w.:-]+)")
_CALL_HEAD = re.compile(r"(?:\[TOOL_CALLS\]\s*|<function=)([\w.-]{1,64})(?:\[ARGS\]|>)\s*$")
_MAX_HEAD = 100  # characters before the arguments of a call
_CUT_OFF = ("length", "max_output_tokens")
_WRAPPERS = frozenset(
    "answer result response output data json arguments parameters properties value content function input "
    "args final toolcalls functioncall tooluses toolinput actioninput".split()
)
_DEPTH = 8  # wrappers around each other, at most
_JSON_WORDS = {"yes": "true", "no": "false", "none": "null", "undefined": "null"}
_SCHEMA_WORDS = {"type", "anyOf", "allOf", "$ref", "enum", "const"}
_CALL_KEYS = ("arguments", "parameters", "args", "input")


def value_of(message: AIMessage, schema: type[Value], payload: Mapping[str, Any] | None = None) -> Any:
    """Return the one JSON object of a reply that has fields of `schema`; its content is not checked.

    It is taken from the tool call, else from the text, else from the thoughts beside an empty text. `payload`
    is what the call sent: a repetition of it is no answer.

    Raises:
        Refused: the text is prose; the text is the model's own.
        ValueError: there is no such object, it is cut off, or there are several different ones.
        EmptyAnswer: there is nothing.
    """
    if arguments := _arguments(message, schema):
        distinct = _distinct([_of_arguments(item, schema) for item in arguments])
        if len(distinct) > 1:
            raise ValueError(f"it holds {len(distinct)} different calls of {schema.__name__}")
        return distinct[0]
    cut_off = message.response_metadata.get("finish_reason") in _CUT_OFF
    if text := str(message.text).strip("\ufeff\u200b \t\r\n"):
        return find(text, schema, payload, parts=not cut_off)
    thoughts = _thoughts_of(message)
    if not thoughts and (message.tool_calls or message.invalid_tool_calls):
        raise ValueError(f"the model called {schema.__name__} without arguments")
    try:
        return find(thoughts, schema, payload, parts=not cut_off)
    except Refused:
        return find("", schema)  # thoughts without an answer are no refusal


def find(
    text: str, schema: type[Value], payload: Mapping[str, Any] | None = None, *, parts: bool = True
) -> Any:
    """Return the one JSON object in a text that has fields of `schema`; raise as `value_of` does.

    With `parts`, the items of the schema's list without the object around them are an answer.
    """
    text = text.strip("\ufeff\u200b \t\r\n")
    if text[:1] in ("{", "[", '"') and parts and (shaped := _shaped(text, schema)) is not None:
        return shaped
    answer = _after_thoughts(text)
    if answer.strip():
        return _only_answer(answer, schema, payload or {}, parts)
    if text:  # all of it is inside the marks of thinking
        with suppress(Refused):
            return _only_answer(text, schema, payload or {}, parts)
    raise EmptyAnswer(f"The model returned neither a {schema.__name__} nor a reason.")


def _thoughts_of(message: AIMessage) -> str:
    """Return the thinking that a server delivers beside the text, "" if there is none."""
    texts = [message.additional_kwargs.get(key) for key in ("reasoning_content", "reasoning")]
    parts = message.content if isinstance(message.content, list) else []
    for part in parts:
        if isinstance(part, dict) and part.get("type") in _THINKING_PARTS:
            texts += [part.get(key) for key in (*_THINKING_PARTS, "text", "summary")]
    return next(filter(None, map(_plain_text, texts)), "")


def refusal_of(message: AIMessage) -> str:
    """Return the model's refusal, which has a field of its own in OpenAI's APIs; "" if there is none."""
    blocks = message.content if isinstance(message.content, list) else []
    inside = [block["refusal"] for block in blocks if isinstance(block, dict) and block.get("refusal")]
    return str(message.additional_kwargs.get("refusal") or " ".join(map(str, inside)))


def finish_reason(message: AIMessage) -> str:
    """Return the provider's reason for the end of a reply, "" if it has none."""
    metadata = message.response_metadata
    details = metadata.get("incomplete_details") or {}  # of the Responses API
    reasons = [metadata.get("finish_reason"), metadata.get("stop_reason"), details.get("reason")]
    return str(next(filter(None, (*reasons, metadata.get("status"))), ""))


def is_empty(message: AIMessage) -> bool:
    """Return whether a reply has neither text nor a tool call nor an answer in its thoughts."""
    if str(message.text).strip() or message.tool_calls or message.invalid_tool_calls:
        return False
    return not _spans(_thoughts_of(message))[0]


def is_complete(message: AIMessage) -> bool:
    """Return whether a reply that reached the cap of tokens nevertheless holds an object with its end."""
    if message.tool_calls:
        return not message.invalid_tool_calls
    text = _after_thoughts(str(message.text))
    if _THOUGHT_STARTS.search(text):
        return False
    spans, unclosed = _spans(text)
    return bool(spans) and not unclosed


def _plain_text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(_plain_text(item.get("text") if isinstance(item, dict) else item) for item in value)
    return value.strip() if isinstance(value, str) else ""


def _arguments(message: AIMessage, schema: type[Value]) -> list[Any]:
    """List the arguments of all tool calls that have any; raise `ValueError` for a call of another tool."""
    calls: Sequence[Any] = [*message.tool_calls, *message.invalid_tool_calls]
    if not all(_names(call["name"], schema) for call in calls):
        names = ", ".join(str(call["name"]) for call in calls[:5])
        raise ValueError(f"the model called {names}, {len(calls)} in all")
    return [call["args"] for call in calls if call["args"] and call["args"] != "{}"]


def _of_arguments(arguments: Any, schema: type[Value]) -> Any:
    if isinstance(arguments, str):
        try:
            arguments = _load(arguments)
        except ValueError:
            return find(arguments, schema)
    shaped = _shaped(arguments, schema)
    return arguments if shaped is None else shaped


def _names(name: Any, schema: type[Value]) -> bool:
    """Return whether a tool's name, with or without a prefix and a number, is that of the schema."""
    if not name:
        return True
    last = re.split(r"[.:/]", re.sub(r":\d+$", "", str(name)))[-1]
    return plain_key(last) == plain_key(schema.__name__)


def plain_key(key: object) -> str:
    """Return a key without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", str(key)).casefold()


def _after_thoughts(text: str) -> str:
    """Return what follows the model's thinking; a mark inside a JSON value is not one."""
    ends = list(_THOUGHT_ENDS.finditer(text))
    if not ends:
        return text
    rest = text[ends[-1].end() :]
    if _spans(rest)[0]:
        return rest
    place = ends[-1].start()
    return text if any(start < place < end for start, end in _spans(text)[0]) else rest


def _only_answer(text: str, schema: type[Value], payload: Mapping[str, Any], parts: bool) -> Any:
    """Return the one answer among the JSON values of a text."""
    spans, unclosed = _spans(text)
    if unclosed:
        raise ValueError("it is cut off: a bracket is not closed")
    values = _values([text[start:end] for start, end in spans] or _lists_in_fences(text))
    prose = bool(_WORDS.search(_MARKS.sub(" ", _without(text, spans))))
    shaped = _distinct([item for value in values if (item := _shaped(value, schema)) is not None])
    if prose or len(shaped) > 1:
        shaped = [item for item in shaped if not _repeats(item, payload)]
    if not shaped and parts and _are_items(values, schema):  # without the object around them
        shaped = [{_list_field(schema): values}]
    if not (shaped or values) and (called := _called(text, schema)):
        shaped = [called]
    if len(shaped) == 1:
        return shaped[0]
    if prose and all(_repeats(value, payload) for value in values):
        raise Refused(text.strip())
    fields = ", ".join(schema.model_fields)
    raise ValueError(
        f"it holds {len(shaped)} different answers" if shaped else f"it has no field of {fields}"
    )


def _called(text: str, schema: type[Value]) -> dict[str, str]:
    """Return the arguments of a call in tags; raise `ValueError` for a call of another tool."""
    arguments = {name: value.strip() for name, value in _PARAMETER.findall(text)}
    if arguments and not all(_names(name, schema) for name in _TOOL.findall(text)):
        raise ValueError(f"the model called {', '.join(_TOOL.findall(text)[:5])}")
    return arguments


def calls_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """List the tool calls, name and arguments, that a server has left in the text of a reply."""
    text = _after_thoughts(text)
    calls = list[tuple[Any, Any]]()
    for start, end in _spans(text)[0]:
        with suppress(ValueError):
            value = _load(text[start:end])
            if head := _CALL_HEAD.search(text, max(start - _MAX_HEAD, 0), start):
                value = {"name": head[1], "arguments": value}
            calls += map(_call, value if isinstance(value, list) else [value])
    tools = [] if any(isinstance(arguments, dict) for _, arguments in calls) else list(_TOOL.finditer(text))
    for number, tool in enumerate(tools, 1):
        end = tools[number].start() if number < len(tools) else len(text)
        calls.append(
            (tool[1], {key: _parameter(part) for key, part in _PARAMETER.findall(text, tool.end(), end)})
        )
    return [call for call in calls if isinstance(call[0], str) and isinstance(call[1], dict)]


def _call(value: Any) -> tuple[Any, Any]:
    """Return the name and the arguments of one call, None for what is none."""
    item = value.get("function", value) if isinstance(value, dict) else {}
    item = item if isinstance(item, dict) else {}
    arguments = next((item[key] for key in _CALL_KEYS if key in item), None)
    return item.get("name"), loaded(arguments) if isinstance(arguments, str) else arguments


def _parameter(text: str) -> Any:
    """Return the JSON value of a parameter, or else its text."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return text.strip()


def _values(texts: Sequence[str]) -> list[Any]:
    """Parse each text; one that looks like JSON and is none is an error, and any other is prose."""
    values = []
    for text in texts:
        try:
            values.append(_load(text))
        except ValueError:
            if _LIKE_JSON.match(text):
                raise
    return values


def _repeats(value: Any, payload: Mapping[str, Any]) -> bool:
    """Return whether a value is a part of what was sent, or empty."""
    return isinstance(value, dict) and all(
        key in payload and payload[key] == item for key, item in value.items()
    )


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return " ".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


def _lists_in_fences(text: str) -> list[str]:
    """Return lists of plain values; in prose without a fence, brackets are no answer."""
    parts = [match[1].strip() for match in _FENCED.finditer(text)] or [_MARKS.sub(" ", text).strip()]
    return [part for part in parts if part.startswith("[")]


def _spans(text: str) -> tuple[list[tuple[int, int]], bool]:
    """List the outermost bracketed parts of a text; and whether a bracket that begins JSON is not closed."""
    spans, stack, place = list[tuple[int, int]](), list[int](), 0
    while token := (_INSIDE if stack else _OUTSIDE).search(text, place):
        place = token.end()
        if token[0] in ("{", "["):
            stack.append(token.start())
        elif token[0] in ("}", "]"):
            start = stack.pop()
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, place))
    return spans, any(_LIKE_JSON.match(text, start) for start in stack)


def loaded(text: str) -> Any:
    """Return the value of a text that is nothing but JSON; None if it is not."""
    try:
        return _load(text) if text.strip()[:1] in ("{", "[", '"') else None
    except ValueError:
        return None


def _load(text: str) -> Any:
    """Parse JSON as it is, or as Python or JavaScript spell it; raise `ValueError`."""
    try:
        try:
            return _load_strictly(text)
        except ValueError as error:
            if text[:1] == "{" == text[1:].lstrip()[:1]:
                return _load(text[1:].rstrip().removesuffix("}"))  # braces doubled, as in a template
            respelled = _COMMAS.sub(lambda match: match[0].removeprefix(","), _SPELLINGS.sub(_as_json, text))
            if respelled == text:
                raise
            try:
                return _load_strictly(respelled)
            except ValueError:
                raise error from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _load_strictly(text: str) -> Any:
    return json.loads(text, strict=False, object_pairs_hook=_unique_keys)


def _as_json(match: re.Match[str]) -> str:
    """Return one token in JSON's spelling."""
    if quoted := match["quoted"]:
        inner = quoted[1:-1].replace("\\'", "'")
        return '"' + re.sub(r'\\.|"', lambda part: part[0] if len(part[0]) > 1 else '\\"', inner) + '"'
    if match["comment"]:
        return ""
    if key := match["key"]:
        return f'"{key}"'
    if word := match["word"]:
        return _JSON_WORDS.get(word.lower(), word.lower())
    return {"：": ":", "，": ","}[match[0]] if match["wide"] else match[0]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a key that comes twice with two values has none that is the answer."""
    built = dict(pairs)
    if len(built) < len(pairs) and any(built[key] != value for key, value in pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key[:80]!r} comes twice")
    return built


def _shaped(value: Any, schema: type[Value], depth: int = _DEPTH) -> dict[str, Any] | None:
    """Return the object with fields of `schema` inside its wrappers; None if there is none, or several."""
    if not depth:
        return None
    if isinstance(value, str):
        return _shaped(loaded(value), schema, depth - 1)
    if isinstance(value, list):
        if len(value) == 1 and (inner := _shaped(value[0], schema, depth - 1)) is not None:
            return inner
        return {field: value} if (field := _list_field(schema)) and not _calls(value) else None
    if not isinstance(value, dict) or _is_schema(value):
        return None
    fields = {plain_key(name) for name in schema.model_fields}
    if any(plain_key(key) in fields for key in value):
        inner = next(iter(value.values())) if len(value) == 1 else None
        return (_shaped(inner, schema, depth - 1) if isinstance(inner, dict) else None) or value
    if "name" in value and any(key in value for key in _CALL_KEYS) and not _names(value["name"], schema):
        return None
    wrappers = _WRAPPERS | {plain_key(schema.__name__)}
    inside = [item for key, item in value.items() if plain_key(key) in wrappers]
    answers = [answer for item in inside if (answer := _shaped(item, schema, depth - 1)) is not None]
    answers = answers or _unmistakable(value.values(), schema, depth - 1)
    return answers[0] if len(answers) == 1 else None


def _is_schema(value: dict[str, Any]) -> bool:
    """Return whether an object is a JSON schema, repeated."""
    parts = value.get("properties")
    return isinstance(parts, dict) and all(
        isinstance(part, dict) and not _SCHEMA_WORDS.isdisjoint(part) for part in parts.values()
    )


def _unmistakable(values: Iterable[Any], schema: type[Value], depth: int) -> list[dict[str, Any]]:
    """List what can only be the answer under whatever name: objects of all its fields, lists of its items."""
    required = {plain_key(name) for name, field in schema.model_fields.items() if field.is_required()}
    answers = [
        _shaped(value, schema, depth)
        for value in values
        if isinstance(value, dict) or (isinstance(value, list) and _are_items(value, schema))
    ]
    return [answer for answer in answers if answer and required <= set(map(plain_key, answer))]


def _calls(value: Sequence[Any]) -> bool:
    """Return whether a list holds tool calls and not values."""
    keys = {"arguments", "parameters"}
    return any(isinstance(item, dict) and keys & item.keys() for item in value)


def _list_field(schema: type[Value]) -> str:
    """Return the name of the one field that is a list, "" if there is none or another field."""
    names = [name for name, field in schema.model_fields.items() if get_origin(field.annotation) is tuple]
    return names[0] if len(names) == 1 and len(schema.model_fields) == 1 else ""


def _are_items(values: Sequence[Any], schema: type[Value]) -> bool:
    """Return whether values are objects with the required fields of the items of the schema's only list."""
    field = _list_field(schema)
    item = get_args(schema.model_fields[field].annotation)[0] if field else None
    if not (isinstance(item, type) and issubclass(item, BaseModel)):
        return False
    required = {plain_key(key) for key, part in item.model_fields.items() if part.is_required()}
    return bool(values) and all(
        isinstance(value, dict) and required <= {*map(plain_key, value)} for value in values
    )
