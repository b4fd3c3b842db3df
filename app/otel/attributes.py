"""Attributes of spans, by the names of OpenTelemetry's GenAI conventions and of OpenInference.

The conventions are those of docs/otel.md. The most important attributes come first, since the last ones are
left out where there is no room.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pleinair.app.otel.images import ImageLinks
from pleinair.app.otel.span import MOST_TEXT, Scalar, cut
from pleinair.app.runs.calls import CallRecord, Message
from pleinair.tools.types import Attempt, Hit, Ledger, Retrieval, Usage, belief

MOST_MESSAGES = 8  # of a request, the newest
MOST_PARTS = 12  # of a message
MOST_WORDS = 4_000  # bytes of the texts of a request, shared by its parts
MOST_HITS = 10
JSON = "application/json"
Pairs = Iterator[tuple[str, Scalar]]


def kind(name: str, operation: str = "") -> dict[str, Scalar]:
    """Return the attributes that say what a span is, by OpenInference and, where it has a name, GenAI."""
    named: dict[str, Scalar] = {"gen_ai.operation.name": operation} if operation else {}
    return {"openinference.span.kind": name, **named}


def _model(name: str, provider: str) -> dict[str, Scalar]:
    """Return the attributes of a model that is called."""
    return {
        "gen_ai.request.model": name,
        "gen_ai.provider.name": provider,
        "llm.model_name": name,
        "llm.provider": provider,
    }


def spent(usage: Usage) -> dict[str, Scalar]:
    """Return what was spent, without what is zero."""
    values = usage.model_dump()
    return {f"pleinair.usage.{name}": value for name, value in values.items() if value}


def call(record: CallRecord, provider: str, links: ImageLinks) -> dict[str, Scalar]:
    """Return the attributes of an MLLM call: its last request and the reply."""
    messages, last = record.requests[-1] if record.requests else ((), None)
    reply = last.reply if last else None
    shown = messages[-MOST_MESSAGES:]
    values = kind("LLM", "chat") | _model(record.model, provider) | _tokens(record)
    values |= {"pleinair.call": record.number, "pleinair.requests": len(record.tries)}
    if len(shown) < len(messages):
        values["pleinair.messages_left_out"] = len(messages) - len(shown)
    if reply:
        values["output.value"] = _text_of(reply)
        values |= _messages("llm.output_messages", (reply,), links)
    if messages:
        values["input.value"] = cut(_text_of(messages[-1]), MOST_TEXT // 2)
    values |= _messages("llm.input_messages", shown, links)
    if last and last.options:
        values["llm.invocation_parameters"] = _json(last.options)
    return values


def _tokens(record: CallRecord) -> dict[str, Scalar]:
    counts = {"input": record.input_tokens, "output": record.output_tokens, "total": record.usage.tokens}
    values: dict[str, Scalar] = {}
    for name, other in (("input", "prompt"), ("output", "completion"), ("total", "total")):
        if counts[name]:
            values[f"llm.token_count.{other}"] = counts[name]
            if name != "total":
                values[f"gen_ai.usage.{name}_tokens"] = counts[name]
    if record.usage.cached_tokens:
        values["llm.token_count.prompt_details.cache_read"] = record.usage.cached_tokens
        values["gen_ai.usage.cache_read.input_tokens"] = record.usage.cached_tokens
    if record.usage.usd:
        values["llm.cost.total"] = record.usage.usd
    return values


def _messages(name: str, messages: Sequence[Message], links: ImageLinks) -> dict[str, Scalar]:
    parts = sum(len(message.parts) + len(message.calls) for message in messages)
    most = max(MOST_WORDS // max(parts, 1), 200)
    return dict(
        pair for at, message in enumerate(messages) for pair in _message(f"{name}.{at}", message, most, links)
    )


def _message(name: str, message: Message, most: int, links: ImageLinks) -> Pairs:
    yield f"{name}.message.role", message.role
    for at, part in enumerate(message.parts[:MOST_PARTS]):
        place = f"{name}.message.contents.{at}.message_content"
        yield f"{place}.type", "image" if part.image else "text"
        if part.image:
            yield f"{place}.image.image.url", links.image(part.image)
        else:
            yield f"{place}.text", cut(part.text, most)
    for at, tool in enumerate(message.calls[:MOST_PARTS]):
        place = f"{name}.message.tool_calls.{at}.tool_call"
        yield f"{place}.id", tool.id
        yield f"{place}.function.name", tool.name
        yield f"{place}.function.arguments", cut(tool.arguments, most)
    if message.call_id:
        yield f"{name}.message.tool_call_id", message.call_id


def _text_of(message: Message) -> str:
    """Return the words of a message: its texts, else its tool calls."""
    text = "\n".join(part.text for part in message.parts if part.text)
    return text or "\n".join(f"{tool.name} {tool.arguments}" for tool in message.calls)


def attempt(attempt: Attempt, generator: str, provider: str, links: ImageLinks) -> dict[str, Scalar]:
    """Return the attributes of the generation of an image: the request and the image."""
    request = attempt.request
    options = {
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "seed": request.seed,
        "negative_prompt": request.negative_prompt,
    }
    images = [reference.picture.sha256 for reference in request.references]
    if request.inpaint:
        images.append(request.inpaint.picture.sha256)
    return {
        **kind("LLM", "generate_content"),
        **_model(generator, provider),
        "gen_ai.output.type": "image",
        "gen_ai.request.seed": request.seed,
        "pleinair.attempt": attempt.number,
        **dict(_image_message("llm.output_messages.0", "assistant", "", [attempt.picture.sha256], links)),
        "output.value": links.image(attempt.picture.sha256),
        "input.value": request.prompt,
        **dict(_image_message("llm.input_messages.0", "user", request.prompt, images, links)),
        "llm.invocation_parameters": _json(options),
    }


def _image_message(name: str, role: str, text: str, images: Iterable[str], links: ImageLinks) -> Pairs:
    yield f"{name}.message.role", role
    place = f"{name}.message.contents"
    if text:
        yield f"{place}.0.message_content.type", "text"
        yield f"{place}.0.message_content.text", text
    for at, image in enumerate(images, int(bool(text))):
        yield f"{place}.{at}.message_content.type", "image"
        yield f"{place}.{at}.message_content.image.image.url", links.image(image)


def retrieval(retrieval: Retrieval, method: str, links: ImageLinks) -> dict[str, Scalar]:
    """Return the attributes of a retrieval: the query and its hits."""
    values = kind("RETRIEVER", "retrieval") | {
        "input.value": retrieval.query,
        "gen_ai.retrieval.query.text": retrieval.query,
        "pleinair.concept": retrieval.concept,
        "pleinair.retrieval.method": method,
        "pleinair.retrieval.abstained": retrieval.abstained,
    }
    if retrieval.threshold is not None:
        values["pleinair.retrieval.threshold"] = retrieval.threshold
    if retrieval.abstained:
        values["output.value"] = retrieval.reason
    hits = retrieval.hits[:MOST_HITS]
    values["gen_ai.retrieval.documents"] = _json([{"id": hit.id, "score": hit.score} for hit in hits])
    return values | dict(pair for at, hit in enumerate(hits) for pair in _document(at, hit, links))


def _document(number: int, hit: Hit, links: ImageLinks) -> Pairs:
    place = f"retrieval.documents.{number}.document"
    yield f"{place}.id", hit.id
    yield f"{place}.score", hit.score
    yield f"{place}.content", cut(hit.caption, 300)
    if url := links.hit(hit):
        yield f"{place}.url", url
    facts = {"license": hit.license, "source": cut(hit.source, 200), "author": cut(hit.author, 100)}
    yield f"{place}.metadata", _json({name: value for name, value in facts.items() if value})


def judgement(attempt: Attempt, ledger: Ledger, links: ImageLinks) -> dict[str, Scalar]:
    """Return the attributes of a critique: the image and the ledger."""
    image = links.image(attempt.picture.sha256)
    rows = [
        {
            "concept": row.concept,
            "status": row.status,
            "confidence": row.confidence,
            "evidence": cut(row.evidence, 200),
        }
        for row in ledger.rows
    ]
    return {
        **kind("EVALUATOR"),
        "pleinair.attempt": attempt.number,
        "input.images.0.image.url": image,
        "input.value": image,
        "output.mime_type": JSON,
        "output.value": _json(rows),
    }


def evaluations(ledger: Ledger) -> list[dict[str, Scalar]]:
    """Return the attributes of GenAI's evaluation results, one for each concept."""
    return [
        {
            "gen_ai.evaluation.name": row.concept,
            "gen_ai.evaluation.score.label": row.status,
            "gen_ai.evaluation.score.value": belief(row),
            "gen_ai.evaluation.explanation": cut(row.evidence, 200),
        }
        for row in ledger.rows
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
