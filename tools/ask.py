"""Put one structured question to a multimodal language model and check the answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from pleinair.tools.types import ModelFault, Refused, Usage, Value

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

Answer = TypeVar("Answer", bound=Value)


@dataclass(frozen=True, slots=True)
class Turn:
    """Repeat an earlier question with its answer; made anew for each call, so that no message is stored."""

    card: dict[str, Any]
    answer: Value
    images: Sequence[bytes] = ()


def ask(
    model: BaseChatModel,
    schema: type[Answer],
    instruction: str,
    card: dict[str, Any],
    images: Sequence[bytes] = (),
    history: Sequence[Turn] = (),
) -> tuple[Answer, Usage]:
    """Ask for one `schema`; `card` is the data, fenced as JSON so that it reads as data.

    Args:
        model: a chat model that can bind tools.
        schema: what the answer must be; its docstring is the question's last word.
        instruction: what to do, in a system message.
        card: prompt, concepts and captions; never mixed into the instruction.
        images: PNG bytes, shown in this order after the card.
        history: earlier turns of the same conversation, oldest first.

    Raises:
        Refused: the model answered in prose instead of the schema; the text is its own.
        ModelFault: the answer did not fit the schema.
    """
    reply, usage = put(model, schema, messages(instruction, card, images, history))
    return read(reply, schema), usage


def put(
    model: BaseChatModel, schema: type[Value], question: Sequence[BaseMessage]
) -> tuple[dict[str, Any], Usage]:
    """Put a question and count what it cost, whatever the answer is; `read` takes the reply."""
    started = perf_counter()
    reply = model.with_structured_output(schema, include_raw=True).invoke(list(question))
    assert isinstance(reply, dict)  # include_raw promises it
    usage = Usage(mllm_calls=1, tokens=tokens(reply["raw"]), seconds=perf_counter() - started)
    return reply, usage


def warmed(model: BaseChatModel, temperature: float) -> BaseChatModel:
    """Set a model's temperature for one call; a model without that field is given back as it is.

    A copy, because `with_structured_output` drops what `bind` has bound.
    """
    if "temperature" not in type(model).model_fields:
        return model
    return model.model_copy(update={"temperature": temperature})


def messages(
    instruction: str, card: dict[str, Any], images: Sequence[bytes], history: Sequence[Turn] = ()
) -> list[BaseMessage]:
    """Build the conversation: the instruction, each earlier card with its answer as JSON, the new card."""
    from langchain_core.messages import AIMessage, SystemMessage

    built: list[BaseMessage] = [SystemMessage(instruction)]
    for turn in history:
        built += [human(turn.card, turn.images), AIMessage(turn.answer.model_dump_json())]
    return [*built, human(card, images)]


def human(card: dict[str, Any], images: Sequence[bytes]) -> HumanMessage:
    """Put a card and its pictures into one message."""
    from langchain_core.messages import HumanMessage

    text = f"```json\n{json.dumps(card, ensure_ascii=False)}\n```"
    content: list[str | dict[Any, Any]] = [{"type": "text", "text": text}]
    content += [image_block(image) for image in images]
    return HumanMessage(content)


def image_block(png: bytes) -> dict[str, Any]:
    """Wrap PNG bytes as a standard content block; it lives only as long as the call."""
    return {"type": "image", "base64": base64.b64encode(png).decode(), "mime_type": "image/png"}


def tokens(raw: AIMessage) -> int:
    """Read how many tokens the call took, 0 where the provider does not say."""
    return raw.usage_metadata["total_tokens"] if raw.usage_metadata else 0


def read(reply: dict[str, Any], schema: type[Answer]) -> Answer:
    """Take the parsed answer, or say why there is none."""
    if isinstance(reply["parsed"], schema):
        return reply["parsed"]
    if reply["parsing_error"]:
        raise ModelFault(f"The model's answer is not a {schema.__name__}: {reply['parsing_error']}")
    said = str(reply["raw"].text).strip()
    raise Refused(said or f"The model gave neither a {schema.__name__} nor a reason.")
