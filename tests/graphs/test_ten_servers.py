"""Whole runs through ten simulated servers: accepted, with the image that the model in the process gets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from support.quirky_servers import SERVERS, QuirkyService, serving
from support.stage import PROMPT, Stage, library, pocket

from pleinair.agent.context import Context
from pleinair.agent.mllm.openai import chat
from pleinair.agent.state import Output, changed
from pleinair.tools import registry
from pleinair.tools.http.support import SUPPORT
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Usage


def play(graph: str, stage: Stage, model: BaseChatModel, folder: Path) -> Output:
    context = Context(model=model, generator=stage, retriever=library(), store=ArtifactStore(folder))
    values = changed(prompt=PROMPT, seed=7, run_id="r")
    return Output.model_validate(registry.resolve("graph", graph).invoke(values, context=context))


@contextmanager
def connected(server: str, stage: Stage, patch: pytest.MonkeyPatch) -> Iterator[tuple[Any, QuirkyService]]:
    patch.setenv("OPENAI_API_KEY", "sk-test")
    with serving(pocket(stage), SERVERS[server]) as service:
        model = chat(service.quirks.model, base_url=service.url)
        yield model.model_copy(update={"temperature": 0.2}), service


def pictures(output: Output) -> list[str]:
    return [attempt.picture.sha256 for attempt in output.attempts]


def check_run(graph: str, server: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    local, remote = Stage(), Stage()
    expected = play(graph, local, pocket(local), folder / "local")
    with connected(server, remote, patch) as (model, service):
        output = play(graph, remote, model, folder / "remote")
        assert output.outcome and output.outcome.ending == "accepted", output.outcome
        assert pictures(output) == pictures(expected) and len(output.attempts) == 2
        total = Usage.total(output.usage)
        assert total.mllm_calls == Usage.total(expected.usage).mllm_calls and total.tokens >= 0
        refused = service.refused
        again = play(graph, Stage(), model, folder / "again")  # nothing is negotiated twice
        assert service.refused == refused and pictures(again)[:1] == pictures(expected)[:1]


@pytest.mark.parametrize("server", SERVERS)
def test_a_run_through_a_server_ends_as_without_it(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_run("pleinair", server, tmp_path, monkeypatch)


@pytest.mark.parametrize("server", ["llama.cpp", "gateway", "text in parts"])
def test_tool_calls_through_a_server_end_as_without_it(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_run("react", server, tmp_path, monkeypatch)


def test_what_each_server_takes_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    with connected("lm studio", stage, monkeypatch) as (model, service):
        play("pleinair", stage, model, tmp_path)
    support = SUPPORT.get(model.server.url, model.server.model)
    assert (support.answers, support.tool_choice) == ("function_calling", "required")
    assert support.without == {"parallel_tool_calls"} and support.images and support.answered
    assert service.refused == 3


def test_every_server_has_three_quirks() -> None:
    assert len(SERVERS) == 10
    for quirks in SERVERS.values():
        odd = [quirks.pack.__name__ != "as_json", quirks.answers, quirks.query, not quirks.lists]
        assert len(quirks.refuses) + len(quirks.first) + len(quirks.changes) + sum(map(bool, odd)) >= 3
