"""Fake engines: small implementations of the protocols, scripted by each test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from PIL import Image, ImageDraw

from pleinair.agent.context import Context
from pleinair.agent.state import Output, changed
from pleinair.tools.storage.artifacts import ArtifactStore, charged
from pleinair.tools.types import Capabilities, GenerateRequest, Hit, Usage

Policy = Callable[[str, dict[str, Any], int], dict[str, Any] | str]


def payload_in(text: str) -> dict[str, Any]:
    """Return the payload of a message, with what a repair says about the answer before."""
    parts = re.findall(r"```(?:json)?\n(.*?)\n```", text, re.DOTALL)
    return {key: value for part in parts for key, value in json.loads(part).items()}


class ScriptedChat(BaseChatModel):
    """Chat model that answers by `policy(schema, payload, number of images)`; a string is prose."""

    policy: Policy
    schemas: list[str] = []
    schema_name: str = ""

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[LanguageModelInput, AIMessage]:
        name = tools[0]["name"] if isinstance(tools[0], dict) else tools[0].__name__
        bound = self.model_copy(update={"schema_name": name})
        bound.schemas = self.schemas
        return bound

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        content = messages[-1].content
        assert isinstance(content, list)
        blocks = [block for block in content if isinstance(block, dict)]
        payload = payload_in("".join(block.get("text", "") for block in blocks))
        self.schemas.append(self.schema_name)
        images = sum(block["type"] != "text" for block in blocks)
        answer = self.policy(self.schema_name, payload, images)
        if isinstance(answer, str):
            message = AIMessage(answer)
        else:
            call = {"name": self.schema_name, "args": answer, "id": f"call-{len(self.schemas)}"}
            message = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "scripted"


class SquareGenerator:
    """Generator of black images with a square whose grey follows seed and references."""

    def __init__(
        self, slots: int = 2, steps: int = 4, inpaint_slots: int | None = None, **declared: Any
    ) -> None:
        self.capabilities = Capabilities(
            id="square",
            slots=slots,
            inpaint=inpaint_slots is not None,
            inpaint_slots=inpaint_slots or 0,
            height=16,
            width=16,
            num_inference_steps=steps,
            guidance_scale=1.0,
            **declared,
        )
        self.requests: list[GenerateRequest] = []

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.requests.append(request)
        for step in range(request.num_inference_steps):
            on_step(step + 1, request.num_inference_steps)
        image = Image.new("RGB", (request.width, request.height))
        grey = 50 + (request.seed + 40 * len(images)) % 200
        ImageDraw.Draw(image).rectangle((4, 4, 12, 12), fill=(grey, grey, grey))
        return image


class PaidGenerator(SquareGenerator):
    """The same generator, for 4 cents an image."""

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        return charged(super().generate(request, images, on_step), Usage(usd=0.04))


class ListRetriever:
    """Retriever with fixed hits for each query."""

    def __init__(self, hits: dict[str, list[Hit]]) -> None:
        self.hits = hits

    def search(self, query: str, k: int) -> list[Hit]:
        return self.hits.get(query, [])[:k]

    def open(self, id: str) -> Image.Image:
        image = Image.new("RGB", (16, 16), "white")
        ImageDraw.Draw(image).text((1, 1), id[:1], fill="black")
        return image

    def entries(self) -> list[Hit]:
        library = {hit.id: hit for hits in self.hits.values() for hit in hits}
        return [library[id].model_copy(update={"score": 0.0}) for id in sorted(library)]


def rows(payload: dict[str, Any], present: Callable[[str], bool]) -> dict[str, Any]:
    """Build a critique with every concept present or missing, at confidence 0.9."""
    return {
        "rows": [
            {
                "concept": name,
                "status": "present" if present(name) else "missing",
                "confidence": 0.9,
                "advice": f"Show the {name}.",
            }
            for name in payload["concepts"]
        ]
    }


def decomposition(*names: str) -> dict[str, Any]:
    """Build a decomposition into these concepts, each captioned by its own name."""
    return {"concepts": [{"name": name, "caption": name} for name in names]}


def make_context(
    folder: Path,
    policy: Policy,
    hits: dict[str, list[Hit]] | None = None,
    generator: SquareGenerator | None = None,
    **options: Any,
) -> Context:
    """Build a context of fake engines, with a real store in `folder`."""
    return Context(
        model=ScriptedChat(policy=policy, schemas=[]),
        generator=generator or SquareGenerator(),
        retriever=ListRetriever(hits or {}),
        store=ArtifactStore(folder / "artifacts"),
        **options,
    )


def call(graph: Any, context: Context, prompt: str = "p", **fields: Any) -> Output:
    """Invoke a graph with plain JSON, as in its checkpoint, and return its output."""
    return Output.model_validate(graph.invoke(changed(prompt=prompt, **fields), context=context))
