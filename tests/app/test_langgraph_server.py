"""LangGraph's own server: `langgraph.json` lists graphs with a JSON context."""

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
def test_a_json_context_selects_the_backends(place: Path, name: str) -> None:
    context = {"settings": {"mllm.satisfied": False, "budget.attempts": 2}}
    graph_input = {"prompt": "two things", "seed": 7, "budget": {"attempts": 2}}
    outcome = served(name).invoke(graph_input, context=context)["outcome"]
    assert outcome["ending"] == ("unchecked" if name == "direct" else "stopped")
    digest = outcome["best"]["picture"]["sha256"]
    assert list((home().home / "served" / "pictures").rglob(f"{digest}.png"))


def test_requests_of_one_thread_are_independent(place: Path) -> None:
    graph: Any = served("pleinair").builder.compile(checkpointer=InMemorySaver())
    thread, context = {"configurable": {"thread_id": "1"}}, {"settings": {"mllm.satisfied": False}}
    for prompt, seed in (("two things", 7), ("two others", 8)):
        graph_input = {"prompt": prompt, "seed": seed, "budget": {"attempts": 2}}
        values = graph.invoke(graph_input, thread, context=context)
        assert [attempt["number"] for attempt in values["attempts"]] == [0, 1]
        assert {attempt["request"]["seed"] for attempt in values["attempts"]} == {seed}
        assert values["outcome"]["best"]["request"]["prompt"].startswith(prompt)


def test_a_missing_context_is_refused_with_what_to_pass() -> None:
    with pytest.raises(BadInput, match="take {'settings': {}}"):
        served("direct").invoke({"prompt": "a finch"})


def test_react_is_served(place: Path) -> None:
    context = {"settings": {"mllm.backend": "talker"}}
    outcome = served("react").invoke({"prompt": "a velmora finch", "seed": 7}, context=context)["outcome"]
    assert outcome["best"] is not None


def test_an_invalid_context_is_bad_input(place: Path) -> None:
    with pytest.raises(BadInput, match=r"nonsense = 1 \(set in: --set\)"):
        served("direct").invoke({"prompt": "x"}, context={"settings": {"nonsense": 1}})


def test_serving_a_graph_does_not_change_its_context_schema() -> None:
    from pleinair.agent.context import Context
    from pleinair.graphs.direct import graph

    served("direct")
    assert graph.context_schema is Context


def test_an_unknown_graph_is_bad_input() -> None:
    with pytest.raises(BadInput, match="nonsense"):
        served("nonsense")
