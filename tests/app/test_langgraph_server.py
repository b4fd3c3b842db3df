"""LangGraph's own server: `langgraph.json` names graphs that take a context of plain JSON."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from support.source_tree import ROOT

from pleinair.app.api import home
from pleinair.app.langgraph_server import served
from pleinair.tools.registry import names
from pleinair.tools.types import BadInput

LISTED: dict[str, str] = json.loads((ROOT / "langgraph.json").read_text("utf-8"))["graphs"]


def load(place: str) -> Any:
    """Import `./file.py:name` by its path, as the server does."""
    file, _, name = place.partition(":")
    spec = importlib.util.spec_from_file_location("graph_of_the_server", ROOT / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return vars(module)[name]


def test_every_graph_is_listed() -> None:
    assert sorted(LISTED) == sorted(names("graph"))


@pytest.mark.parametrize("name", LISTED)
def test_the_server_can_load_it_and_show_its_schemas(name: str) -> None:
    graph = load(LISTED[name])
    assert (graph.name, graph.checkpointer) == (name, None)
    assert set(graph.get_context_jsonschema()["properties"]) == {"profile", "settings"}
    assert "prompt" in graph.get_input_jsonschema()["properties"]
    assert "outcome" in graph.get_output_jsonschema()["properties"]


@pytest.mark.parametrize("name", ["direct", "pleinair"])
def test_a_context_of_json_chooses_the_engines(place: Path, name: str) -> None:
    context = {"settings": {"mllm.satisfied": False, "budget.attempts": 2}}
    given = {"prompt": "two things", "seed": 7, "budget": {"attempts": 2}}
    outcome = served(name).invoke(given, context=context)["outcome"]
    assert outcome["ending"] == ("unchecked" if name == "direct" else "stopped")
    digest = outcome["best"]["picture"]["sha256"]
    assert list((home().home / "served" / "pictures").rglob(f"{digest}.png"))


def test_a_thread_of_the_server_answers_each_request_for_itself(place: Path) -> None:
    graph: Any = served("pleinair").builder.compile(checkpointer=InMemorySaver())
    thread, context = {"configurable": {"thread_id": "1"}}, {"settings": {"mllm.satisfied": False}}
    for prompt, seed in (("two things", 7), ("two others", 8)):
        given = {"prompt": prompt, "seed": seed, "budget": {"attempts": 2}}
        values = graph.invoke(given, thread, context=context)
        assert [one["number"] for one in values["attempts"]] == [0, 1]
        assert {one["request"]["seed"] for one in values["attempts"]} == {seed}
        assert values["outcome"]["best"]["request"]["prompt"].startswith(prompt)


def test_a_served_graph_without_a_context_says_what_to_pass() -> None:
    with pytest.raises(BadInput, match="take {'settings': {}}"):
        served("direct").invoke({"prompt": "a finch"})


def test_a_served_model_may_drive(place: Path) -> None:
    context = {"settings": {"mllm.backend": "talker"}}
    outcome = served("react").invoke({"prompt": "a velmora finch", "seed": 7}, context=context)["outcome"]
    assert outcome["best"] is not None


def test_a_context_that_is_wrong_is_bad_input(place: Path) -> None:
    with pytest.raises(BadInput, match=r"nonsense = 1 \(set in: --set\)"):
        served("direct").invoke({"prompt": "x"}, context={"settings": {"nonsense": 1}})


def test_the_graph_itself_keeps_its_own_context() -> None:
    from pleinair.agent.context import Context
    from pleinair.graphs.direct import graph

    served("direct")
    assert graph.context_schema is Context


def test_an_unknown_graph_is_bad_input() -> None:
    with pytest.raises(BadInput, match="nonsense"):
        served("nonsense")
