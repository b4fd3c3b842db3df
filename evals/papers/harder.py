"""Test a claim where the plain libraries cannot show it: the settings were fixed before any was run.

A caption can only be worth more than a name where it tells more, words alone only mislead where captions lie,
and a domain's own pool only counts against another. Not covered: the words of Cross-modal RAG's instruction,
which the miniature generator cannot read; what is measured is what they are for, the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableLambda

from pleinair.evals.papers.bench import Bench, Shelf
from pleinair.evals.papers.cases import RARE, SOUGHT, in_turn
from pleinair.evals.papers.tasks import CAPTION, SIZE, Task, drawn, first_is_right
from pleinair.graphs import crossmodal, direct, imagerag
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.pocket.prompts import describe, with_article
from pleinair.tools.pocket.world import SPECIES
from pleinair.tools.types import Capabilities, GenerateRequest, Generator

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatResult
    from langchain_core.runnables import Runnable
    from PIL.Image import Image

OF_DOMAIN = 100  # pictures of a domain's own pool
LOOKS = {one.name: f"a photo of {with_article(describe(one))}" for one in SPECIES}


class Describing(BaseChatModel):
    """Know how each species looks, as a large model does, and caption it so; else be the inner model."""

    inner: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return "describing"

    def bind_tools(self, tools: Sequence[Any], **given: Any) -> Runnable[Any, AIMessage]:
        """Bind the inner model's, and word its captions anew."""
        return self.inner.bind_tools(tools, **given) | RunnableLambda(_described)

    def _generate(self, messages: list[BaseMessage], *rest: Any, **given: Any) -> ChatResult:
        return self.inner._generate(messages, *rest, **given)


def _described(reply: AIMessage) -> AIMessage:
    """Replace the captions of species by what they look like."""
    for call in reply.tool_calls:
        for one in call["args"].get("captions", ()):
            one["caption"] = LOOKS.get(one["name"], one["caption"])
    return reply


class Turned:
    """Draw from the same references in the other order; implements `Generator`."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @property
    def capabilities(self) -> Capabilities:
        """Give the generator's own, under another name: its pictures are others."""
        own = self._generator.capabilities
        return own.model_copy(update={"id": f"{own.id}, references turned"})

    def generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: Callable[[int, int], None]
    ) -> Image:
        """Draw; one reference or none is as it was."""
        turned = request.model_copy(update={"references": request.references[::-1]})
        return self._generator.generate(turned, images[::-1], on_step)


def worded(bench: Bench, seed: int, prompts: int) -> Iterator[Task]:
    """ImageRAG's captions against names, by a model that knows more than the encoder."""
    shelf, model = bench.shelf("hard", SIZE, seed), bench.context.model
    found = bench.retriever(shelf)
    for species in SOUGHT:
        name = species.name
        asked = {"concepts": name, "captions": CAPTION.format(name), "describing": LOOKS[name]}
        for column, text in asked.items():
            look = partial(first_is_right, shelf, found, name, None, text)
            yield Task("captions", column, seed, species.tier, f"look-up {name}", look)
    contexts = {
        "concepts": bench.over(shelf, imagerag=ImageRAGOptions(retrieve_by="concepts")),
        "captions": bench.over(shelf, imagerag=ImageRAGOptions()),
        "describing": bench.over(shelf, imagerag=ImageRAGOptions(), model=Describing(inner=model)),
    }
    for case in in_turn(("rare", "novel"), prompts, seed):
        for column, context in contexts.items():
            yield drawn(bench, "captions", column, seed, case, imagerag.graph, context)


def compared(bench: Bench, seed: int, prompts: int) -> Iterator[Task]:
    """ImageRAG's tables 6 and 7: a generic pool, and a smaller one of the domain."""
    shelves = {
        "generic": bench.shelf("generic", SIZE, seed),
        "domain": bench.shelf("domain", OF_DOMAIN, seed),
    }
    return over_shelves(bench, "domain", "base", shelves, seed, prompts)


def over_shelves(
    bench: Bench, section: str, base: str, shelves: Mapping[str, Shelf], seed: int, prompts: int
) -> Iterator[Task]:
    """Look rare species up and draw prompts over each library, and draw them without one as `base`."""
    for species in RARE:
        for name, shelf in shelves.items():
            look = partial(first_is_right, shelf, bench.retriever(shelf), species.name)
            yield Task(section, name, seed, "rare", f"look-up {species.name}", look)
    for case in in_turn(("rare", "two"), prompts, seed):
        yield drawn(bench, section, base, seed, case, direct.graph, bench.context)
        for name, shelf in shelves.items():
            context = bench.over(shelf, imagerag=ImageRAGOptions())
            yield drawn(bench, section, name, seed, case, imagerag.graph, context)


def bound(bench: Bench, seed: int, prompts: int) -> Iterator[Task]:
    """Cross-modal RAG where captions lie: without its dense stage, and without the map of its pictures."""
    shelf = bench.shelf("hard", SIZE, seed)
    method = bench.context.crossmodal.model_copy(update={"template": "plain"})
    blind = method.model_copy(update={"dense": False})
    contexts = {
        "all": bench.over(shelf, crossmodal=method),
        "no dense": bench.over(shelf, crossmodal=blind),
        "no map": bench.over(shelf, crossmodal=method, generator=Turned(bench.context.generator)),
    }
    for case in in_turn(("two",), prompts, seed):
        for name, context in contexts.items():
            yield drawn(bench, "binding", name, seed, case, crossmodal.graph, context)
