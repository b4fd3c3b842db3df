"""The chat model behind OpenAI's interface: what is sent, what is counted, what stays secret."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage, SystemMessage
from PIL import Image
from support.fake_engines import ScriptedChat
from support.fault_server import error, playing, says
from support.openai_server import KEY, MODEL, Json, Service, over_the_wire, proven, served
from support.recording_chat import ImageRAGAnswers, images_of, recording

from pleinair.agent.mllm.openai import OpenAIChat, chat
from pleinair.agent.mllm.request import described
from pleinair.tools.http import prices
from pleinair.tools.mllm import schemas
from pleinair.tools.mllm.ask import ask
from pleinair.tools.mllm.schemas import Critique, Decision
from pleinair.tools.types import BadInput, Value

YES = {"match": True, "why": "as asked"}


def scripted(answer: dict[str, Any] | str = YES) -> ScriptedChat:
    return ScriptedChat(policy=lambda *_: answer, schemas=[])


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side // 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


def client(service: Service, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> OpenAIChat:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return chat(MODEL, **{"base_url": service.url} | arguments)


@pytest.mark.parametrize("settings", [{}, {"answers": "function_calling"}, {"responses_api": True}])
def test_every_interface_returns_the_answer(settings: dict[str, Any]) -> None:
    with over_the_wire(scripted(), **settings) as model:
        answer, usage = ask(model, Decision, "Match?", {"prompt": "p"}, [png(64)])
    assert answer == Decision.model_validate(YES)
    assert usage.mllm_calls == 1


def test_the_schema_is_sent_strictly_and_the_cap_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(scripted()) as service:
        ask(client(service, monkeypatch, max_tokens=99), Decision, "Match?", {"prompt": "p"})
    (sent,) = service.requests
    form = sent["response_format"]["json_schema"]
    assert (form["name"], form["strict"]) == ("Decision", True)
    assert form["schema"]["required"] == ["match", "why"]
    assert sent["max_tokens"] == 99
    instruction, _, schema = sent["messages"][0]["content"].partition("\n\nAnswer with one JSON object ")
    assert instruction == "Match?" and json.loads(schema[schema.index("{") :])["required"] == ["match", "why"]


def test_a_proven_server_gets_the_schema_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(scripted()) as service:
        proven(service.url, MODEL)
        ask(client(service, monkeypatch), Decision, "Match?", {"prompt": "p"})
    assert service.requests[0]["messages"][0]["content"] == "Match?"


@pytest.mark.parametrize(
    "schema",
    [value for value in vars(schemas).values() if isinstance(value, type) and issubclass(value, Value)],
)
def test_every_schema_is_portable(schema: type[Value]) -> None:
    sent = described(schema)
    assert sent["description"]
    for part in parts_of(sent["schema"]):
        assert not {"default", "prefixItems", "minLength", "pattern", "title", "format"}.intersection(part)
        assert part.get("additionalProperties", False) is False
        assert not {"$ref", "$defs"}.intersection(part)
        assert part.get("required", []) == list(part.get("properties", []))


def parts_of(part: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all inside it; the names of fields are no schema."""
    if isinstance(part, dict):
        yield part
        part = [value for key, value in part.items() if key not in ("properties", "$defs")] + [
            value for key in ("properties", "$defs") for value in part.get(key, {}).values()
        ]
    for item in part if isinstance(part, list) else []:
        yield from parts_of(item)


def test_a_box_is_sent_as_four_numbers() -> None:
    row = described(Critique)["schema"]["properties"]["rows"]["items"]["properties"]
    box = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    assert row["box"]["anyOf"] == [box, {"type": "null"}]
    assert "fractions of width and height" in row["box"]["description"]


@pytest.mark.parametrize(("side", "width"), [(64, 64), (512, 512), (2000, 512)])
def test_only_large_images_are_scaled_down(side: int, width: int) -> None:
    served_model = recording(ImageRAGAnswers(matches=(True,)))
    with over_the_wire(served_model) as model:
        ask(model, Decision, "Match?", {"prompt": "p"}, [png(side)])
    ((image,),) = images_of(served_model.conversation("Decision"))
    assert Image.open(io.BytesIO(image)).size == (width, width // 2)
    assert (image == png(side)) is (side <= 512)


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [({}, 0.25), ({"sends_temperature": False}, None), ({"model": "gpt-5.6-luna"}, None)],
)
def test_a_temperature_is_sent_where_the_model_takes_one(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], sent: float | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = chat(**{"model": MODEL, "base_url": "http://127.0.0.1:9/v1"} | arguments)
    warm = model.model_copy(update={"temperature": 0.25})
    assert warm._get_request_payload([HumanMessage("?")]).get("temperature") == sent


def test_the_cap_is_named_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for url, name in (("", "max_completion_tokens"), ("http://127.0.0.1:9/v1", "max_tokens")):
        model = chat("gpt-5.4-mini", base_url=url)
        assert model._get_request_payload([HumanMessage("?")], max_tokens=7)[name] == 7


def test_tokens_and_cost_are_counted() -> None:
    own_prices = {MODEL: {"read": 2.0, "written": 10.0}}
    with over_the_wire(counting(), prices=own_prices) as model:
        usage = ask(model, Decision, "Match?", {"prompt": "p"})[1]
    assert usage.tokens == 1500
    assert usage.usd == pytest.approx((1000 * 2 + 500 * 10) / 1e6)


@pytest.mark.parametrize(
    ("price", "usd"), [({"read_cached": 0.5}, 200 * 2 + 800 * 0.5 + 500 * 10), ({}, 1000 * 2 + 500 * 10)]
)
def test_cached_tokens_are_counted_at_their_own_price(price: Json, usd: float) -> None:
    own_prices = {MODEL: {"read": 2.0, "written": 10.0} | price}
    with over_the_wire(counting(cache_read=800), prices=own_prices) as model:
        usage = ask(model, Decision, "Match?", {"prompt": "p"})[1]
    assert (usage.tokens, usage.cached_tokens) == (1500, 800)
    assert usage.usd == pytest.approx(usd / 1e6)


def test_the_beginning_of_a_request_is_the_same_for_every_image_and_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(scripted()) as service:
        model = client(service, monkeypatch)
        for prompt, side in (("p", 64), ("q", 32)):
            ask(model, Decision, "Match?", {"prompt": prompt}, [png(side)])
    first, second = (json.dumps(request["messages"][0]) for request in service.requests)
    assert first == second
    for request in service.requests:
        assert [part["type"] for part in request["messages"][1]["content"]] == ["text", "image_url"]


@pytest.mark.parametrize(
    ("model", "marks", "expected"),
    [
        ("anthropic/claude-x", None, True),
        ("anthropic/claude-x", False, False),
        (MODEL, True, True),
        (MODEL, None, False),
    ],
)
def test_what_may_be_cached_is_marked_where_a_provider_needs_it(
    monkeypatch: pytest.MonkeyPatch, model: str, marks: bool | None, expected: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    sender = chat(model, base_url="http://127.0.0.1:9/v1", cache_control=marks)
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [SystemMessage("Look."), HumanMessage([{"type": "text", "text": "this"}, image])]
    system, human = sender._get_request_payload(messages)["messages"]
    mark = {"cache_control": {"type": "ephemeral"}}
    blocks = [{"type": "text", "text": "Look."} | mark] if expected else "Look."
    assert system["content"] == blocks
    assert human["content"] == [{"type": "text", "text": "this"} | (mark if expected else {}), image]


def photo(side: int) -> bytes:
    """Return a PNG of random blocks, which compresses no better than a photograph."""
    pixels = np.random.default_rng(0).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("side", "form"), [(1024, "jpeg"), (512, "jpeg"), (1024, "png"), (512, "png"), (64, "jpeg")]
)
def test_a_large_image_is_sent_in_its_form_and_a_small_one_as_it_is(side: int, form: str) -> None:
    served_model, sent = recording(ImageRAGAnswers(matches=(True,))), photo(side)
    with over_the_wire(served_model, image_form=form) as model:
        ask(model, Decision, "Match?", {"prompt": "p"}, [sent])
    ((received,),) = images_of(served_model.conversation("Decision"))
    with Image.open(io.BytesIO(received)) as image:
        assert max(image.size) == min(side, 512)
        assert image.format == ("PNG" if form == "png" or side == 64 else "JPEG")
    assert (received == sent) is (side == 64 or (form == "png" and side == 512))
    if form == "jpeg" and side == 512:
        assert len(received) < len(sent) / 2


def counting(cache_read: int = 0) -> ScriptedChat:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatResult

    class Counting(ScriptedChat):
        def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
            result = super()._generate(messages)
            used: Json = {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500}
            used["input_token_details"] = {"cache_read": cache_read}
            result.generations[0].message.usage_metadata = used  # type: ignore[attr-defined]
            return result

    return Counting(policy=lambda *_: YES, schemas=[])


def test_a_dated_version_costs_what_the_model_does() -> None:
    assert prices.price_of("gpt-5.4-mini-2026-03-17", {}) == prices.shipped()["gpt-5.4-mini"]
    own_prices = {"gpt-5.4-mini": {"read": 1, "written": 1}}
    assert prices.price_of("gpt-5.4-mini", own_prices) == prices.Price(read=1, written=1)
    assert prices.price_of("nobody's", {}) is None


def test_an_invalid_price_is_refused() -> None:
    with pytest.raises(BadInput, match=r"mllm.prices.x = \{'read': -1\}: wanted"):
        prices.price_of("x", {"x": {"read": -1}})


def test_an_unknown_price_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chat("nobody's", base_url="http://127.0.0.1:9/v1")
    assert not caplog.text
    chat("nobody's", base_url="https://models.example/v1")
    assert 'No price is known for "nobody\'s"' in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": ""},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://host/v1?key=1"},
        {"base_url": "http://[::1"},
        {"answers": "prose"},
        {"detail": "all"},
        {"deadline": 0},
        {"silence": -1.0},
        {"tries": 0},
        {"side": 0},
    ],
)
def test_an_invalid_argument_is_named(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(BadInput, match=rf"^mllm\.{next(iter(arguments))} = "):
        chat(**{"model": MODEL} | arguments)


def test_a_password_in_the_address_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(BadInput, match="mllm.base_url") as error:
        chat(MODEL, base_url="http://me:hunter2@host/v1")
    assert "hunter2" not in str(error.value)


def test_openai_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(BadInput, match="Set the environment variable OPENAI_API_KEY"):
        chat("gpt-5.4-mini")


def test_the_key_may_be_in_another_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with served(scripted()) as service:
        model = chat(MODEL, base_url=service.url, key_variable="MY_KEY")
        assert ask(model, Decision, "Match?", {})[0].match


def test_the_key_is_in_no_text_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = chat(MODEL, base_url="http://127.0.0.1:9/v1")
    texts = (repr(model), str(model), dumps(model), repr(model._identifying_params))
    assert not [text for text in texts if KEY in text]


def test_asynchronous_calls() -> None:
    import asyncio

    with over_the_wire(recording(ImageRAGAnswers(matches=(True,)))) as model:
        request = [HumanMessage([{"type": "text", "text": '```json\n{"prompt": "p"}\n```'}])]
        bound = model.with_structured_output(Decision)
        assert asyncio.run(bound.ainvoke(request)).match


def test_the_prices_are_shipped() -> None:
    assert Path(prices.TABLE).is_file() and prices.shipped()


def test_a_server_that_refuses_marks_for_a_cache_is_called_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with playing(
        error(422, "cache_control: Extra inputs are not permitted"), says(json.dumps(YES))
    ) as server:
        model = chat("m", base_url=server.url, cache_control=True)
        answer, usage = ask(model, Decision, "Match?", {"prompt": "p"})
    assert (answer.match, usage.mllm_calls) == (True, 1)
    assert ["cache_control" in json.dumps(request.json) for request in server.requests] == [True, False]
