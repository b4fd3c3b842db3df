"""LangGraph's own server: `langgraph.json` lists graphs with a JSON context."""

import asyncio
import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from starlette.testclient import TestClient
from support.source_tree import ROOT

from pleinair.app.api import home
from pleinair.app.served.graphs import served
from pleinair.app.served.images import app
from pleinair.tools.registry import names, resolve
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
    assert set(graph.get_context_jsonschema()["properties"]) == {"profile", "settings", "image_url"}
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


BUDGETS: list[tuple[dict[str, Any], dict[str, Any], int]] = [  # settings, input, images
    ({"budget.attempts": 1}, {}, 1),
    ({"budget": {"attempts": 1}}, {}, 1),
    ({"budget": {"usd": 9}, "budget.attempts": 2}, {}, 2),
    ({"budget.attempts": 3}, {"budget": {"attempts": 2}}, 2),
    ({"budget.usd": 0.05}, {}, 2),  # an image is 4 cents
    ({"budget.usd": 0.05}, {"budget": {"usd": 0.03}}, 1),
]


@pytest.mark.parametrize(("settings", "values", "images"), BUDGETS)
@pytest.mark.parametrize("graph", [served("pleinair"), resolve("graph", "pleinair")])
def test_a_budget_of_the_settings_is_heeded(
    place: Path, graph: Any, settings: dict[str, Any], values: dict[str, Any], images: int
) -> None:
    context = {"settings": {"mllm.satisfied": False, "generator.usd": 0.04, **settings}}
    before = copy.deepcopy(context)
    output = graph.invoke({"prompt": "two things", **values}, context=context)
    assert (len(output["attempts"]), output["outcome"]["ending"]) == (images, "stopped")
    assert context == before


def test_a_run_without_a_context_has_the_configured_settings(place: Path) -> None:
    output = served("direct").invoke({"prompt": "a finch"})
    assert urlopen(output["image_url"]).read() == image_of(output)


@pytest.mark.parametrize("kind", ["data", "file"])
def test_the_image_of_a_served_run_is_in_its_output(place: Path, kind: str) -> None:
    output = served("pleinair").invoke({"prompt": "a finch"}, context={"image_url": kind})
    assert output["image_url"].startswith(kind)
    assert urlopen(output["image_url"]).read() == image_of(output)


def test_the_link_of_an_image_is_a_path_of_the_server(place: Path) -> None:
    output = served("direct").invoke({"prompt": "a finch"}, context={"image_url": "link"})
    client = TestClient(app)
    response = client.get(output["image_url"])
    assert (response.headers["content-type"], response.content) == ("image/png", image_of(output))
    for path in (f"/images/{'0' * 64}.png", "/images/..%2F..%2Fruns.png", "/images/", "/"):
        assert client.get(path).status_code == 404


def image_of(output: dict[str, Any]) -> bytes:
    digest = output["outcome"]["best"]["picture"]["sha256"]
    (path,) = (home().home / "served" / "pictures").rglob(f"{digest}.png")
    return path.read_bytes()


WRONG: list[tuple[Any, Any, str]] = [  # context, input, message
    ({"settings": {"budgett.attempts": 1}}, {}, "set in: context.*Did you mean `budget`"),
    ({"settings": {"budget": {"atempts": 1}}}, {}, "budget.atempts.*Did you mean `attempts`"),
    ({"setings": {}}, {}, "context: unknown key 'setings'; accepted: profile.*Did you mean `settings`"),
    ({"settings": "budget.attempts=1"}, {}, "context.settings = 'budget.attempts=1': must be a table"),
    ({"profile": 3}, {}, "context.profile = 3: must be a text"),
    ({"image_url": "png"}, {}, "context.image_url = 'png': must be 'data', 'link' or 'file'"),
    ({"profile": "nonesuch"}, {}, "profile = 'nonesuch': no such profile; accepted: "),
    ({"settings": {"library.folder": "/nonesuch"}}, {}, "library.folder = '/nonesuch': no such folder"),
    ({"settings": {"budget.attempts": 0}}, {}, "budget.attempts = 0: no image could be generated"),
    ({}, {"prompt": " "}, "prompt: it is empty"),
    ({}, {"prompt": "x", "sed": 3}, "unknown key 'sed'.*Did you mean `seed`"),
    (3, {}, "context: int; wanted a `pleinair.agent.context.Context`"),
]


@pytest.mark.parametrize(("context", "values", "message"), WRONG)
def test_the_message_of_an_error_reaches_the_caller(
    place: Path, context: Any, values: dict[str, Any], message: str
) -> None:
    """LangGraph's server passes on the messages of `RuntimeError` and hides those of other classes."""
    graph: Any = served("pleinair")
    for run in (graph.invoke, lambda *args, **options: asyncio.run(graph.ainvoke(*args, **options))):
        with pytest.raises(BadInput, match=message) as caught:
            run({"prompt": "a finch"} | values, context=context)
        assert isinstance(caught.value, RuntimeError)
        assert "\n" not in str(caught.value)
    assert not list((home().home / "served").rglob("*.png"))


def test_react_is_served(place: Path) -> None:
    context = {"settings": {"mllm.backend": "talker"}}
    outcome = served("react").invoke({"prompt": "a blue jay", "seed": 7}, context=context)["outcome"]
    assert outcome["best"] is not None


def test_an_invalid_context_is_bad_input(place: Path) -> None:
    with pytest.raises(BadInput, match=r"nonsense = 1 \(set in: context\)"):
        served("direct").invoke({"prompt": "x"}, context={"settings": {"nonsense": 1}})


def test_serving_a_graph_does_not_change_its_context_schema() -> None:
    from pleinair.agent.context import Context
    from pleinair.graphs.direct import graph

    served("direct")
    assert graph.context_schema is Context


def test_an_unknown_graph_is_bad_input() -> None:
    with pytest.raises(BadInput, match="nonsense"):
        served("nonsense")
