"""Ten servers on this machine that speak OpenAI's interface with the peculiarities of real ones.

Behind each is a chat model of LangChain, mostly the pocket one, whose answers are wrapped as that server's
models wrap theirs. What a server refuses, it refuses in its own words, as far as they are published.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from langchain_core.language_models import BaseChatModel
from support.openai_server import Handler as PlainHandler
from support.openai_server import Json, Service, completion, running

from pleinair.tools.mllm import schemas

Refuse = Callable[[Json], tuple[int, Any] | None]  # a request to the status and body of its refusal
Change = Callable[[Json, Json], None]  # changes a completion; the request is the second argument
Pack = Callable[[Json], tuple[bytes, dict[str, str]]]  # the body and headers of a completion

_SCHEMAS = {str(schema.__doc__): name for name, schema in vars(schemas).items() if name[:1].isupper()}


def as_json(reply: Json) -> tuple[bytes, dict[str, str]]:
    return json.dumps(reply).encode(), {}


@dataclass(frozen=True)
class Quirks:
    """Peculiarities of a server."""

    model: str
    refuses: Sequence[Refuse] = ()
    first: Sequence[tuple[int, Any, dict[str, str]]] = ()  # replies before any answer
    changes: Sequence[Change] = ()
    pack: Pack = as_json
    answers: str = ""  # the only form of answers that is not ignored; "": none is
    path: str = "/v1"
    query: dict[str, str] = field(default_factory=dict)
    header: str = "authorization"
    lists: bool = True  # whether there is a list of models


class QuirkyService(Service):
    """Server with quirks."""

    def __init__(self, model: BaseChatModel, quirks: Quirks) -> None:
        super().__init__(model)
        self.RequestHandlerClass = Handler
        self.quirks, self.refused, self.answered = quirks, 0, 0
        self.first = list(quirks.first)

    @property
    def url(self) -> str:
        """Return the base URL as its users write it."""
        query = "&".join(f"{key}={value}" for key, value in self.quirks.query.items())
        end = f"/chat/completions?{query}" if query else ""
        return f"http://127.0.0.1:{self.server_port}{self.quirks.path}{end}"


class Handler(PlainHandler):
    server: QuirkyService

    def do_GET(self) -> None:
        if not self.server.quirks.lists:
            return self.send(404, {"detail": "Not Found"})
        self.send(200, {"object": "list", "data": [{"id": self.server.quirks.model, "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server, quirks, url = self.server, self.server.quirks, urlsplit(self.path)
        server.requests.append(request)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path != f"{quirks.path}/chat/completions" or query != quirks.query:
            return self.send(404, {"detail": "Not Found"})
        if self.headers[quirks.header] is None or request["model"] != quirks.model:
            return self.send(401, {"error": {"message": "no key"}})
        if server.first:
            status, body, headers = server.first.pop(0)
            return self.send_with(status, json.dumps(body).encode(), headers)
        for refuse in quirks.refuses:
            if refusal := refuse(request):
                server.refused += 1
                return self.send(*refusal)
        server.answered += 1
        reply = completion(understood(request, quirks.answers), server.model)
        for change in quirks.changes:
            change(reply, request)
        data, headers = quirks.pack(reply)
        self.send_with(200, data, headers)

    def send_with(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def understood(request: Json, answers: str) -> Json:
    """Return a request as its model understands it: a schema in the text is one, what is ignored is none."""
    request = dict(request)
    ignored = {"response_format", "tools", "tool_choice"} if answers == "text" else set[str]()
    for key in ignored & request.keys():
        del request[key]
    request["messages"] = [_unmerged(message) for message in request["messages"]]
    form = request.get("response_format", {})
    if "tools" not in request and form.get("type") != "json_schema" and (name := schema_in(request)):
        request["response_format"] = {"type": "json_schema", "json_schema": {"name": name}}
    return request


def schema_in(request: Json) -> str:
    """Return the name of the schema that stands in the text of a request."""
    marker = "fits this JSON schema, and with nothing else: "
    for message in request["messages"]:
        for text in _texts(message):
            if marker in text:
                schema, _ = json.JSONDecoder().raw_decode(text.partition(marker)[2])
                return _SCHEMAS[schema["description"]]
    return ""


def _texts(message: Json) -> list[str]:
    content = message.get("content") or ""
    return [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]


def _unmerged(message: Json) -> Json:
    """Leave out of a user's message the instruction that was joined with it."""
    content = message.get("content")
    if message["role"] != "user" or not isinstance(content, list):
        return message
    starts = [n for n, part in enumerate(content) if str(part.get("text", "")).startswith("```json")]
    return {**message, "content": content[starts[-1] :]} if starts else message


def names(key: str, status: int, body: Any) -> Refuse:
    """Refuse requests with a key."""
    return lambda request: (status, body) if key in request else None


def answers_by(kind: str, status: int, body: Any) -> Refuse:
    """Refuse a type of response_format."""
    return lambda request: (status, body) if request.get("response_format", {}).get("type") == kind else None


def object_choice(status: int, body: Any) -> Refuse:
    return lambda request: (status, body) if isinstance(request.get("tool_choice"), dict) else None


def cap_above(size: int, status: int, body: Any) -> Refuse:
    return lambda request: (status, body) if request.get("max_tokens", 0) > size else None


def system_role(request: Json) -> tuple[int, Any] | None:
    if any(message["role"] == "system" for message in request["messages"]):
        return 400, {"error": {"message": "System role not supported", "type": "invalid_request_error"}}
    return None


def image_detail(request: Json) -> tuple[int, Any] | None:
    if '"detail"' in json.dumps(request["messages"]):
        return 422, {"detail": "Failed to deserialize: unknown field `detail`, expected `url`"}
    return None


def message_of(reply: Json) -> Json:
    message: Json = reply["choices"][0]["message"]
    return message


def text(change: Callable[[str], Any]) -> Change:
    """Change the text of an answer in JSON; refusals and tool calls stay."""

    def apply(reply: Json, _: Json) -> None:
        message = message_of(reply)
        if str(message.get("content") or "").startswith("{"):
            message["content"] = change(message["content"])

    return apply


def drop(*keys: str) -> Change:
    def apply(reply: Json, _: Json) -> None:
        for key in keys:
            reply.pop(key, None)
            message_of(reply).pop(key, None)

    return apply


def put(key: str, value: Any) -> Change:
    return lambda reply, _: reply.update({key: value})


def ids(value: Any) -> Change:
    """Give every tool call the same id, None for none."""

    def apply(reply: Json, _: Json) -> None:
        for call in message_of(reply).get("tool_calls", []):
            call["id"] = value

    return apply


def object_arguments(reply: Json, _: Json) -> None:
    for call in message_of(reply).get("tool_calls", []):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])


def thoughts_beside(key: str) -> Change:
    return lambda reply, _: message_of(reply).update({key: "The user wants {something}, so I list it."})


def in_thoughts(key: str) -> Change:
    """Put an answer in JSON beside an empty content, as servers do that take all for thoughts."""

    def apply(reply: Json, _: Json) -> None:
        message = message_of(reply)
        if str(message.get("content") or "").startswith("{"):
            message[key], message["content"] = message["content"], None

    return apply


def fenced(answer: str) -> str:
    return f"Here is the JSON:\n\n```json\n{answer}\n```"


def thousandths(answer: str) -> str:
    """Write boxes as Gemini does: y before x, from 0 to 1000."""
    value = json.loads(answer)
    for row in value.get("rows", []):
        if row.get("box"):
            x0, y0, x1, y1 = row["box"]
            row["box"] = [round(part * 1000) for part in (y0, x0, y1, x1)]
    return json.dumps(value)


def parts(answer: str) -> list[Json]:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see {…}."}]}
    half = len(answer) // 2
    return [thinking, {"type": "text", "text": answer[:half]}, {"type": "text", "text": answer[half:]}]


def streamed(reply: Json) -> tuple[bytes, dict[str, str]]:
    """Send a completion as events, in pieces of seven characters."""
    message = dict(message_of(reply))
    content = message.pop("content", None) or ""
    calls = message.pop("tool_calls", [])
    deltas: list[Json] = [{"role": "assistant"}]
    deltas += [{"content": content[start : start + 7]} for start in range(0, len(content), 7)]
    deltas += [{"tool_calls": [{**call, "index": number}]} for number, call in enumerate(calls)]
    events: list[Json] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    head = {"id": "c", "object": "chat.completion.chunk"}
    lines = "".join(f"data: {json.dumps(head | event)}\n\n" for event in events)
    return f"{lines}data: [DONE]\n\n".encode(), {"content-type": "text/event-stream"}


def compressed(reply: Json) -> tuple[bytes, dict[str, str]]:
    return gzip.compress(json.dumps(reply).encode()), {"content-encoding": "gzip"}


def kept_alive(reply: Json) -> tuple[bytes, dict[str, str]]:
    return b": OPENROUTER PROCESSING\n\n" * 3 + b"\n \n" + json.dumps(reply).encode(), {}


def _error(message: str, **more: Any) -> Json:
    return {"error": {"message": message, **more}}


LOADING: tuple[int, Any, dict[str, str]] = (
    503,
    {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
    {},
)
SERVERS: dict[str, Quirks] = {
    "ollama": Quirks(
        "qwen3-vl:8b",
        refuses=[object_choice(400, _error("json: cannot unmarshal object into field tool_choice"))],
        changes=[
            text(lambda answer: f"<think>\nA {{finch}}?\n</think>\n\n{answer}"),
            drop("usage", "id"),
            ids(""),
        ],
        answers="text",
    ),
    "vllm": Quirks(
        "llava-hf/llava-v1.6",
        refuses=[
            cap_above(
                1000,
                400,
                {
                    "object": "error",
                    "message": "max_tokens is too large: at most 1000",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                },
            ),
            object_choice(
                400, {"object": "error", "message": '"auto" tool choice requires --tool-call-parser'}
            ),
        ],
        changes=[thoughts_beside("reasoning_content"), put("usage", {"prompt_tokens": 9})],
    ),
    "llama.cpp": Quirks(
        "gemma-3-4b",
        first=[LOADING, LOADING],
        refuses=[answers_by("json_schema", 400, _error("failed to parse grammar", code=400))],
        changes=[
            drop("role", "created"),
            ids(""),
            put("usage", {"completion_tokens": 5, "total_tokens": None}),
        ],
    ),
    "lm studio": Quirks(
        "qwen2.5-vl-7b",
        refuses=[
            answers_by("json_schema", 400, {"error": "'response_format.type' must be 'text'"}),
            object_choice(400, {"error": "Invalid tool_choice type: 'object'. Supported: none, auto"}),
            names(
                "parallel_tool_calls", 400, {"error": "Unrecognized key(s) in object: 'parallel_tool_calls'"}
            ),
        ],
        changes=[text(fenced), ids("0")],
    ),
    "openrouter": Quirks(
        "vendor/model:free",
        first=[
            (200, _error("Provider returned error", code=502, metadata={"raw": "overloaded"}), {}),
            (
                200,
                {"id": "g", "choices": [{"error": {"code": 429, "message": "slow down"}, "message": {}}]},
                {},
            ),
        ],
        changes=[in_thoughts("reasoning"), put("usage", {"prompt_tokens": -1, "completion_tokens": 3})],
        pack=kept_alive,
    ),
    "gemini": Quirks(
        "gemini-2.5-flash",
        refuses=[
            names("parallel_tool_calls", 400, [_error("Unknown name 'parallel_tool_calls'", code=400)]),
            answers_by(
                "json_schema", 400, [_error("Invalid value at 'response_schema'", status="INVALID_ARGUMENT")]
            ),
        ],
        changes=[text(lambda answer: fenced(thousandths(answer))), ids("")],
        path="/v1beta/openai",
        answers="text",
    ),
    "azure": Quirks(
        "gpt-5-mini",
        refuses=[
            names("max_tokens", 400, _error("Unsupported parameter: 'max_tokens'", param="max_tokens")),
            names(
                "temperature", 400, _error("Unsupported value", param="temperature", code="unsupported_value")
            ),
            names("parallel_tool_calls", 400, _error("no", param="parallel_tool_calls")),
        ],
        changes=[put("prompt_filter_results", [{}])],
        path="/openai/deployments/gpt-5-mini",
        query={"api-version": "2026-01-01"},
        header="api-key",
        lists=False,
    ),
    "transformers": Quirks(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        refuses=[image_detail],
        changes=[drop("usage"), text(lambda answer: f"{answer}\n{answer}")],
        pack=streamed,
        answers="text",
    ),
    "gateway": Quirks(
        "any",
        refuses=[
            answers_by(
                "json_schema", 422, {"detail": [{"loc": ["body", "response_format"], "msg": "extra"}]}
            ),
            answers_by(
                "json_object", 422, {"detail": [{"loc": ["body", "response_format"], "msg": "extra"}]}
            ),
        ],
        changes=[object_arguments, put("usage", None), put("created", None)],
        pack=compressed,
    ),
    "text in parts": Quirks(
        "magistral",
        refuses=[
            system_role,
            names("parallel_tool_calls", 422, {"detail": [{"loc": ["body", "parallel_tool_calls"]}]}),
        ],
        changes=[text(parts), ids("call_1"), put("id", None)],
    ),
}


def serving(model: BaseChatModel, quirks: Quirks) -> AbstractContextManager[QuirkyService]:
    """Serve a model with quirks on a free port of this machine."""
    return running(QuirkyService(model, quirks))
