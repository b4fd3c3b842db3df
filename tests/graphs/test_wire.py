"""Every graph over a real connection: the same steps, images and costs as with the model in the process."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from support.openai_server import over_the_wire
from support.recording_chat import ImageRAGAnswers, recording
from support.stage import PROMPT, Stage, library, pocket

from pleinair.agent.context import Context
from pleinair.agent.state import changed
from pleinair.tools import registry
from pleinair.tools.realrag import RealRAGOptions
from pleinair.tools.storage.artifacts import ArtifactStore

SETTINGS: list[dict[str, Any]] = [{}, {"answers": "function_calling"}]


def play(name: str, stage: Stage, model: BaseChatModel, folder: Path) -> dict[str, Any]:
    """Run a graph of the registry and return its state without times."""
    context = Context(
        model=model,
        generator=stage,
        retriever=library(),
        store=ArtifactStore(folder / "artifacts"),
        realrag=RealRAGOptions(method="zero"),  # the others need a trained retriever
    )
    values = changed(prompt=PROMPT, seed=7, run_id="r")
    return dict(timeless(registry.resolve("graph", name).invoke(values, context=context)))


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in ("seconds", "image_url")}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("settings", SETTINGS, ids=["json schema", "function calling"])
@pytest.mark.parametrize("name", registry.names("graph"))
def test_every_graph_is_the_same_over_the_wire(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    local, remote = Stage(), Stage()
    expected = play(name, local, pocket(local), tmp_path / "local")
    with over_the_wire(pocket(remote), **settings) as model:
        result = play(name, remote, model, tmp_path / "remote")
    assert result == expected
    assert expected["attempts"]
    assert [request.seed for request in remote.requests] == [request.seed for request in local.requests]


def test_the_loop_calls_the_remote_model(tmp_path: Path) -> None:
    stage = Stage()
    with over_the_wire(pocket(stage)) as model:
        result = play("pleinair", stage, model, tmp_path)
    assert result["outcome"]["ending"] == "accepted"
    assert [len(request.references) for request in stage.requests] == [0, 1]
    assert sum(usage["mllm_calls"] for usage in result["usage"]) == 3
    assert sum(usage["tokens"] for usage in result["usage"]) > 100


def test_a_refusal_crosses_the_wire(tmp_path: Path) -> None:
    stage = Stage()
    context = Context(
        model=pocket(stage), generator=stage, retriever=library(), store=ArtifactStore(tmp_path)
    )
    prompt = "the economic consequences of the peace, in nine chapters"
    with over_the_wire(context.model) as model:
        wired = Context(model=model, generator=stage, retriever=library(), store=context.store)
        graph, values = registry.resolve("graph", "pleinair"), changed(prompt=prompt, seed=1)
        local, remote = (graph.invoke(values, context=side) for side in (context, wired))
    assert timeless(remote["outcome"]) == timeless(local["outcome"])
    assert remote["outcome"]["ending"] == "refused"
    assert "I cannot draw" in remote["outcome"]["reason"]


def test_the_temperature_of_the_repetitions_crosses_the_wire(tmp_path: Path) -> None:
    served = recording(ImageRAGAnswers())
    with over_the_wire(served) as model:
        play("imagerag", Stage(), model, tmp_path)
    assert served.temperatures("MissingConcepts") == pytest.approx([0, 1 / 3, 2 / 3])


CONNECTED: list[list[Any]] = []  # connections are recorded in the last list, if there is one


def record_connection(event: str, arguments: tuple[Any, ...]) -> None:
    if CONNECTED and event in (
        "socket.connect",
        "socket.getaddrinfo",
        "socket.sendto",
        "socket.gethostbyname",
    ):
        CONNECTED[-1].append(arguments[1] if event == "socket.connect" else arguments)


@pytest.fixture
def connections() -> Iterator[list[Any]]:
    """Record every connection and every resolved name."""
    sys.addaudithook(record_connection)  # a hook cannot be removed; it is idle after the test
    CONNECTED.append([])
    yield CONNECTED[-1]
    CONNECTED.clear()


def test_only_the_named_server_is_reached(tmp_path: Path, connections: list[Any]) -> None:
    stage = Stage()
    with over_the_wire(pocket(stage)) as model:
        port = int(model.server.url.rpartition(":")[2].removesuffix("/v1"))
        play("pleinair", stage, model, tmp_path)
    assert len(connections) >= 3
    assert {place[:2] for place in connections} == {("127.0.0.1", port)}
