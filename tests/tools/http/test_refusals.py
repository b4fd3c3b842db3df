"""What servers refuse: errors in the forms of many servers, each with the part that it is about."""

from typing import Any

import pytest

from pleinair.tools.http.refusals import refusal_of
from pleinair.tools.http.support import (
    Part,
    Refusal,
    Request,
    Support,
    SupportTable,
    describe,
    stepped_down,
)

SCHEMA = Request(answers="json_schema", cap_name="max_tokens", cap=2048, images=True)
FUNCTION = Request(answers="function_calling", tools=True, cap_name="max_tokens", cap=2048)
TOOLS = Request(tools=True, cap_name="max_tokens", cap=2048)

ERRORS: dict[str, tuple[int, Any, Request, Part | None, int]] = {
    "fastapi: marks for a cache": (
        422,
        {"detail": [{"loc": ["body", "messages", 0, "content", 0, "cache_control"], "msg": "Extra inputs"}]},
        Request(cache_marks=True),
        "cache_control",
        0,
    ),
    "openai: cap": (
        400,
        {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "param": "max_tokens",
            "code": "unsupported_parameter",
        },
        SCHEMA,
        "cap",
        0,
    ),
    "openai: size of the cap": (
        400,
        {
            "message": "max_tokens is too large: 2048. This model supports at most 1024 completion tokens",
            "param": "max_tokens",
            "code": "invalid_value",
        },
        SCHEMA,
        "cap",
        1024,
    ),
    "vllm: size of the cap": (
        400,
        {
            "message": "'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum "
            "context length is 2048 tokens and your request has 500 input tokens",
            "code": 400,
            "param": "max_tokens",
        },
        SCHEMA,
        "cap",
        1024,
    ),
    "groq: size of the cap": (
        400,
        {"message": "`max_tokens` must be less than or equal to `1536`, the maximum value"},
        SCHEMA,
        "cap",
        1536,
    ),
    "openai: temperature": (
        400,
        {
            "message": "Unsupported value: 'temperature' does not support 0.3 with this model.",
            "param": "temperature",
            "code": "unsupported_value",
        },
        SCHEMA,
        "temperature",
        0,
    ),
    "openai: schemas": (
        400,
        {
            "message": "Invalid parameter: 'response_format' of type 'json_schema' is not supported "
            "with this model.",
            "param": None,
        },
        SCHEMA,
        "answers",
        0,
    ),
    "openai: format by its field": (
        400,
        {"message": "no", "param": "response_format.type"},
        SCHEMA,
        "answers",
        0,
    ),
    "deepseek: schemas": (
        400,
        {"message": "This response_format type is unavailable now", "code": "invalid_request_error"},
        SCHEMA,
        "answers",
        0,
    ),
    "fastapi: a place": (
        422,
        {"detail": [{"loc": ["body", "response_format"], "msg": "Extra inputs are not permitted"}]},
        SCHEMA,
        "answers",
        0,
    ),
    "fastapi: parallel calls": (
        422,
        {"detail": [{"loc": ["body", "parallel_tool_calls"], "msg": "extra fields not permitted"}]},
        FUNCTION,
        "parallel_tool_calls",
        0,
    ),
    "fastapi: a tool choice": (
        422,
        {"detail": [{"loc": ["body", "tool_choice", "str"], "msg": "Input should be a valid string"}]},
        FUNCTION,
        "tool_choice",
        0,
    ),
    "fastapi: strict": (
        422,
        {"detail": [{"loc": ["body", "tools", 0, "function", "strict"], "msg": "extra"}]},
        FUNCTION,
        "strict",
        0,
    ),
    "mistral: parallel calls": (
        400,
        {"object": "error", "message": "Unknown parameter: parallel_tool_calls"},
        FUNCTION,
        "parallel_tool_calls",
        0,
    ),
    "vllm: tool choice": (
        400,
        {"message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'},
        TOOLS,
        "tool_choice",
        0,
    ),
    "lm studio: tool choice": (
        400,
        {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"},
        FUNCTION,
        "tool_choice",
        0,
    ),
    "ollama: tools": (
        400,
        {"message": "registry.ollama.ai/library/llava:7b does not support tools"},
        FUNCTION,
        "tools",
        0,
    ),
    "llama.cpp: a grammar": (
        400,
        {"code": 400, "message": "failed to parse grammar", "type": "invalid_request_error"},
        SCHEMA,
        "answers",
        0,
    ),
    "gemini: a reference": (
        400,
        {"code": 400, "message": "Invalid JSON payload received. Unknown name \"$ref\" at 'response_schema'"},
        SCHEMA,
        "answers",
        0,
    ),
    "llama.cpp: images": (
        500,
        {"code": 500, "message": "image input is not supported - hint: you may need to provide the mmproj"},
        SCHEMA,
        "images",
        0,
    ),
    "vllm: images": (400, {"message": "text-only is not a multimodal model"}, SCHEMA, "images", 0),
    "vllm: no image": (
        400,
        {"message": "At most 0 image(s) may be provided in one prompt. Images not supported"},
        SCHEMA,
        "images",
        0,
    ),
    "ollama: images": (
        500,
        {"message": "this model does not support image input: multimodal data"},
        SCHEMA,
        "images",
        0,
    ),
    "openrouter: images": (
        404,
        {"message": "No endpoints found that support image input", "code": 404},
        SCHEMA,
        "images",
        0,
    ),
    "openai: images": (
        400,
        {
            "message": "Invalid content type. image_url is only supported by certain models.",
            "param": "messages.[1].content.[1].type",
        },
        SCHEMA,
        "images",
        0,
    ),
    "deepseek: images": (
        400,
        {"message": "Failed to deserialize: unknown variant `image_url`, expected `text`"},
        SCHEMA,
        "images",
        0,
    ),
    "openrouter: the provider's words": (
        400,
        {
            "message": "Provider returned error",
            "code": 400,
            "metadata": {"raw": '{"error":"response_format is not supported"}', "provider_name": "X"},
        },
        SCHEMA,
        "answers",
        0,
    ),
    "openrouter: the provider's words in FastAPI's form": (
        400,
        {
            "message": "Provider returned error",
            "metadata": {"raw": '{"detail": "response_format json_schema is not supported"}'},
        },
        SCHEMA,
        "answers",
        0,
    ),
    "openrouter: parameters": (
        404,
        {"message": "No endpoints found that can handle the requested parameters.", "code": 404},
        SCHEMA,
        "answers",
        0,
    ),
    "ollama: an image without its part of the model": (
        400,
        {"message": "this model is missing data required for image input"},
        SCHEMA,
        "images",
        0,
    ),
    "vllm: not one image": (
        400,
        {"message": "At most 0 image(s) may be provided in one prompt."},
        SCHEMA,
        "images",
        0,
    ),
    "lm studio: images": (
        400,
        {"error": "Vision add-on is not loaded, but images were provided for processing"},
        SCHEMA,
        "images",
        0,
    ),
    "groq: images": (400, {"message": "messages[1].content must be a string"}, SCHEMA, "images", 0),
    "mistral: detail": (
        422,
        {"message": {"detail": [{"loc": ["body", "messages", 1, "image_url", "detail"], "msg": "extra"}]}},
        SCHEMA,
        "detail",
        0,
    ),
    "dashscope: one small image": (
        400,
        {"message": "The image length and width do not meet the model restrictions."},
        SCHEMA,
        None,
        0,
    ),
    "openai: one odd image": (
        400,
        {"message": "You uploaded an unsupported image. Please make sure your image is valid."},
        SCHEMA,
        None,
        0,
    ),
    "gemma: no system role": (400, {"message": "System role not supported"}, SCHEMA, "roles", 0),
    "mistral: roles": (
        500,
        {"message": "Conversation roles must alternate user/assistant/user/assistant/..."},
        SCHEMA,
        "roles",
        0,
    ),
    "text generation inference: detail": (
        422,
        {"message": "Failed to deserialize: unknown field `detail`, expected `url`"},
        SCHEMA,
        "detail",
        0,
    ),
    "one damaged image": (400, {"message": "Invalid image: unsupported image format"}, SCHEMA, None, 0),
    "one image too many": (
        400,
        {"message": "At most 1 image(s) may be provided in one request"},
        SCHEMA,
        None,
        0,
    ),
    "no such model": (
        404,
        {"message": "The model `vision` does not exist", "code": "model_not_found"},
        SCHEMA,
        None,
        0,
    ),
    "a wrong key": (401, {"message": "tools are not allowed"}, TOOLS, None, 0),
    "an unknown parameter": (400, {"message": "Unknown parameter."}, SCHEMA, None, 0),
    "what was not sent": (400, {"message": "tools are not supported"}, Request(), None, 0),
}


@pytest.mark.parametrize(("status", "body", "sent", "part", "size"), ERRORS.values(), ids=ERRORS)
def test_the_refused_part_is_read(
    status: int, body: Any, sent: Request, part: Part | None, size: int
) -> None:
    refusal = refusal_of(status, body, sent)
    assert refusal == (Refusal(part=part, size=size) if part else None)


def steps(part: Part, sent: Request, size: int = 0) -> list[Support]:
    """Refuse a part again and again, and return what is left after each time."""
    supports, answers = list[Support](), sent.answers
    while part != "cap" or sent.cap_name:
        step = stepped_down(sent.support, Refusal(part=part, size=size), sent)
        if step is None:
            break
        supports.append(step)
        assert len(supports) < 20
        sent = sent.model_copy(
            update={
                "support": step,
                "answers": answers and (step.answers or answers),
                "cap_name": "" if step.cap_name == "none" else step.cap_name or sent.cap_name,
                "cap": step.cap or sent.cap,
            }
        )
        size = size and sent.cap // 2
    return supports


def test_answers_step_down_to_the_text() -> None:
    forms = [support.answers for support in steps("answers", SCHEMA)]
    assert forms == ["function_calling", "json_object", "text"]
    assert [support.tool_choice for support in steps("tool_choice", TOOLS)] == ["required", "auto", "none"]
    assert steps("tools", TOOLS) == [] and steps("images", SCHEMA) == []


def test_the_cap_is_renamed_lowered_and_left_out() -> None:
    assert [support.cap_name for support in steps("cap", SCHEMA)] == ["max_completion_tokens", "none"]
    lowered = steps("cap", SCHEMA, 1024)
    assert [support.cap for support in lowered] == [1024, 512, 256, 128, 64, 0]
    assert lowered[-1].cap_name == "none"


def test_an_optional_parameter_is_dropped_once() -> None:
    (dropped,) = steps("temperature", SCHEMA)
    assert dropped.without == {"temperature"}
    assert "without temperature" in describe(dropped)


def test_what_another_thread_has_learnt_is_tried_first() -> None:
    current = Support(answers="text")
    assert stepped_down(current, Refusal(part="answers"), SCHEMA) is current


def test_a_second_process_knows_what_the_first_has_learnt(tmp_path: Any) -> None:
    first, second, key = SupportTable(), SupportTable(), ("http://h/v1", "m")
    for table in (first, second):
        table.open(tmp_path / "servers")
    first.set(*key, Support(answers="text", images=True))
    assert second.get(*key) == Support(answers="text", images=True)
    assert second.get("http://h/v1", "other") == Support()
    (file,) = (tmp_path / "servers").iterdir()
    assert '"date"' in file.read_text("utf-8")
    for text in ("{", file.read_text("utf-8").replace('"date": ', '"date": -'), "[]"):
        file.write_text(text, encoding="utf-8")
        third = SupportTable()
        third.open(tmp_path / "servers")
        assert third.get(*key) == Support()
