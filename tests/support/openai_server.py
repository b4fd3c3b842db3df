"""Server on this machine with OpenAI's interface, which answers with a chat model of LangChain."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages

from pleinair.agent.mllm.openai import OpenAIChat, chat
from pleinair.tools.http.support import SUPPORT, Support
from pleinair.tools.mllm import schemas
from pleinair.tools.mllm.ask import with_temperature
from pleinair.tools.types import PleinairError

KEY = "sk-test-0123456789abcdef"
MODEL = "pocket"

Json = dict[str, Any]
S = TypeVar("S", bound=ThreadingHTTPServer)


class Service(ThreadingHTTPServer):
    """Server of Chat Completions and Responses that records its requests."""

    daemon_threads = True

    def __init__(self, model: BaseChatModel) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = model
        self.requests: list[Json] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        self.send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        if self.headers["authorization"] != f"Bearer {KEY}":
            return self.send(
                401, {"error": {"message": f"Incorrect API key: {self.headers['authorization']}"}}
            )
        if request["model"] != MODEL:
            return self.send(404, {"error": {"message": f"no {request['model']}", "code": "model_not_found"}})
        respond = completion if self.path == "/v1/chat/completions" else response
        try:
            self.send(200, respond(request, self.server.model))
        except PleinairError as error:
            self.send(400, {"error": {"message": str(error)}})

    def send(self, status: int, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def completion(request: Json, model: BaseChatModel) -> Json:
    """Answer a Chat Completions request."""
    form = request.get("response_format", {}).get("json_schema", {})
    tools = [tool["function"] for tool in request.get("tools", [])]
    reply = answer(convert_to_messages(request["messages"]), form, tools, request, model)
    message: Json = {"role": "assistant", "content": content(reply, form), "refusal": None}
    if not form and reply.tool_calls:
        message["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": function(call)} for call in reply.tool_calls
        ]
    finish = "tool_calls" if "tool_calls" in message else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage(reply, "prompt_tokens", "completion_tokens"),
    }


def response(request: Json, model: BaseChatModel) -> Json:
    """Answer a request to the Responses API; without tools."""
    form = request["text"]["format"]
    messages = [
        {"role": item["role"], "content": [chat_part(part) for part in parts(item)]}
        for item in request["input"]
    ]
    reply = answer(convert_to_messages(messages), form, [], request, model)
    text = {"type": "output_text", "text": content(reply, form), "annotations": []}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "model": MODEL,
        "status": "completed",
        "output": [
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
        ],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage(reply, "input_tokens", "output_tokens"),
    }


def answer(
    messages: list[BaseMessage], form: Json, tools: list[Json], request: Json, model: BaseChatModel
) -> AIMessage:
    """Call the model behind the server, with the form as a tool."""
    if "temperature" in request:
        model = with_temperature(model, request["temperature"])
    offered = [getattr(schemas, tool["name"], tool) for tool in ([form] if form else tools)]
    bound = model.bind_tools(offered) if offered else model
    reply = bound.invoke([plain(message) for message in messages])
    assert isinstance(reply, AIMessage)
    return reply


def plain(message: BaseMessage) -> BaseMessage:
    """Convert images back to LangChain's own blocks; each must have low detail."""
    if not isinstance(message, HumanMessage) or isinstance(message.content, str):
        return message
    return HumanMessage([block(part) for part in message.content if isinstance(part, dict)])


def block(part: Json) -> Json:
    if part["type"] != "image_url":
        return part
    assert part["image_url"].get("detail", "low") == "low"
    head, _, data = part["image_url"]["url"].partition(";base64,")
    return {"type": "image", "base64": data, "mime_type": head.removeprefix("data:")}


def parts(item: Json) -> list[Json]:
    text = item["content"]
    return [{"type": "input_text", "text": text}] if isinstance(text, str) else text


def chat_part(part: Json) -> Json:
    if part["type"] == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}}
    return {"type": "text", "text": part["text"]}


def content(reply: AIMessage, form: Json) -> str:
    if form and reply.tool_calls:
        return json.dumps(reply.tool_calls[0]["args"])
    return str(reply.text)


def function(call: Any) -> Json:
    return {"name": call["name"], "arguments": json.dumps(call["args"])}


def usage(reply: AIMessage, read: str, written: str) -> Json | None:
    used = reply.usage_metadata
    if used is None:
        return None
    return {
        read: used["input_tokens"],
        written: used["output_tokens"],
        "total_tokens": used["total_tokens"],
        f"{read}_details": {"cached_tokens": used.get("input_token_details", {}).get("cache_read", 0)},
        **({f"{written}_details": {}} if read == "input_tokens" else {}),
    }


def served(model: BaseChatModel) -> AbstractContextManager[Service]:
    """Serve a model on a free port of this machine."""
    return running(Service(model))


@contextmanager
def running(service: S) -> Iterator[S]:
    """Serve until the block ends."""
    with service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


@contextmanager
def over_the_wire(model: BaseChatModel, **arguments: Any) -> Iterator[OpenAIChat]:
    """Yield a client of the model, over a real connection."""
    with served(model) as service, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        proven(service.url, MODEL)
        yield chat(MODEL, base_url=service.url, **arguments)


def proven(url: str, model: str) -> None:
    """Remember that a model answers, takes images and keeps to schemas, as after `doctor --mllm`."""
    SUPPORT.set(url, model, Support(answered=True, images=True, edits=True, keeps_schema=True))
