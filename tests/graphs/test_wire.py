"""Every graph over a real connection: the same steps, pictures and costs as with the model in the process."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from PIL import Image
from support.fake_engines import ListRetriever, SquareGenerator
from support.openai_server import over_the_wire
from support.recording_chat import ImageRAGAnswers, recording

from pleinair.agent.context import Context
from pleinair.agent.state import changed
from pleinair.tools import registry
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.detector import Detection
from pleinair.tools.realrag import RealRAGOptions
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import GenerateRequest, Hit

PROMPT = "a photo of a velmora finch beside a telma wren on snow"
NAMES = ("velmora finch", "telma wren")
WAYS: list[dict[str, Any]] = [{}, {"answers": "function_calling"}]


class Stage(SquareGenerator):
    """Show the first subject always and the second from a reference only; remember who is in a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[bytes, set[str]] = {}

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        picture = super().generate(request, images, on_step)
        self.shown[picture.tobytes()] = {NAMES[0], *(one.concept for one in request.references)}
        return picture


class StageDetector:
    """See what was staged: the pocket model's language is the real one, its sight is not under test."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def detect(self, picture: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        there = self.stage.shown.get(picture.tobytes(), set())
        return [
            Detection(0.95, (0.1, 0.2, 0.6, 0.7)) if name in there else Detection(0.04) for name in phrases
        ]


def pocket(stage: Stage) -> PocketChat:
    chat = PocketChat()
    chat._loaded = StageDetector(stage)  # type: ignore[assignment]
    return chat


def library() -> ListRetriever:
    hits = [
        Hit(id=f"{name.split()[0]}-{n}.png", score=0.9 - n / 10, caption=f"a photo of a {name}")
        for name in NAMES
        for n in range(2)
    ]
    of = {name: [hit for hit in hits if name in hit.caption] for name in NAMES}
    queries = {f"a photo of a {name}": of[name] for name in NAMES} | of
    return ListRetriever(queries | {PROMPT: hits})


def play(name: str, stage: Stage, model: BaseChatModel, folder: Path) -> dict[str, Any]:
    """Run a graph of the registry and give what came out, without what differs between two runs: time."""
    context = Context(
        model=model,
        generator=stage,
        retriever=library(),
        store=ArtifactStore(folder / "artifacts"),
        realrag=RealRAGOptions(method="zero"),  # the others need a trained retriever
    )
    given = changed(prompt=PROMPT, seed=7, run_id="r")
    return dict(timeless(registry.resolve("graph", name).invoke(given, context=context)))


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("how", WAYS, ids=["json schema", "function calling"])
@pytest.mark.parametrize("name", registry.names("graph"))
def test_every_graph_gives_the_same_over_the_wire(name: str, how: dict[str, Any], tmp_path: Path) -> None:
    here = Stage()
    expected = play(name, here, pocket(here), tmp_path / "here")
    there = Stage()
    with over_the_wire(pocket(there), **how) as model:
        result = play(name, there, model, tmp_path / "there")
    assert result == expected
    assert expected["attempts"]
    assert [request.seed for request in there.requests] == [request.seed for request in here.requests]


def test_the_loop_needs_the_model_on_the_other_side(tmp_path: Path) -> None:
    stage = Stage()
    with over_the_wire(pocket(stage)) as model:
        result = play("pleinair", stage, model, tmp_path)
    assert result["outcome"]["ending"] == "accepted"
    assert [len(request.references) for request in stage.requests] == [0, 1]
    assert sum(one["mllm_calls"] for one in result["usage"]) == 3
    assert sum(one["tokens"] for one in result["usage"]) > 100


def test_a_prompt_that_is_declined_there_is_refused_here(tmp_path: Path) -> None:
    stage = Stage()
    context = Context(
        model=pocket(stage), generator=stage, retriever=library(), store=ArtifactStore(tmp_path)
    )
    prompt = "the economic consequences of the peace, in nine chapters"
    with over_the_wire(context.model) as model:
        wired = Context(model=model, generator=stage, retriever=library(), store=context.store)
        graph = registry.resolve("graph", "pleinair")
        here, there = (graph.invoke(changed(prompt=prompt), context=one) for one in (context, wired))
    assert timeless(there["outcome"]) == timeless(here["outcome"])
    assert there["outcome"]["ending"] == "refused"
    assert "cannot read this prompt" in there["outcome"]["reason"]


def test_the_temperature_of_the_repetitions_crosses_the_wire(tmp_path: Path) -> None:
    heard = recording(ImageRAGAnswers())
    with over_the_wire(heard) as model:
        play("imagerag", Stage(), model, tmp_path)
    assert heard.temperatures("MissingConcepts") == pytest.approx([0, 1 / 3, 2 / 3])


CONNECTED: list[list[Any]] = []  # what is noted goes into the last list, if there is one


def note_connection(event: str, arguments: tuple[Any, ...]) -> None:
    if CONNECTED and event in (
        "socket.connect",
        "socket.getaddrinfo",
        "socket.sendto",
        "socket.gethostbyname",
    ):
        CONNECTED[-1].append(arguments[1] if event == "socket.connect" else arguments)


@pytest.fixture
def connections() -> Iterator[list[Any]]:
    """Note every connection and every name that is looked up."""
    sys.addaudithook(note_connection)  # a hook stays as long as the process, and is idle after the test
    CONNECTED.append([])
    yield CONNECTED[-1]
    CONNECTED.clear()


def test_nobody_is_reached_but_the_server_that_was_named(tmp_path: Path, connections: list[Any]) -> None:
    stage = Stage()
    with over_the_wire(pocket(stage)) as model:
        port = int(model.server.url.rpartition(":")[2].removesuffix("/v1"))
        play("pleinair", stage, model, tmp_path)
    assert len(connections) >= 3
    assert {place[:2] for place in connections} == {("127.0.0.1", port)}
