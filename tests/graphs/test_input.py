"""The schemas of every graph, and errors of its input."""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import make_context

from pleinair.tools.types import BadInput

GRAPHS = ("crossmodal", "direct", "imagerag", "pleinair", "react", "realrag")


def graph_of(name: str) -> Any:
    return import_module(f"pleinair.graphs.{name}").graph


@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_shows_its_schemas(name: str) -> None:
    graph = graph_of(name)
    context = graph.get_context_jsonschema()
    assert context["required"] == ["model", "generator", "retriever", "store"]
    assert {"k", "threshold", "scorer"} <= set(context["properties"])
    assert "prompt" in graph.get_input_jsonschema()["required"]
    assert "outcome" in graph.get_output_jsonschema()["properties"]


WRONG = [
    ({"prompt": ""}, "prompt: it is empty"),
    ({"prompt": " \n"}, "prompt: it is empty"),
    ({"prompt": "x" * 2001}, "prompt: 2,001 characters; wanted at most 2,000"),
    ({"prompt": "a\0b"}, "prompt: a NUL character at position 1"),
    ({"promt": "a finch"}, "input: unknown key 'promt'; accepted: prompt, .* Did you mean `prompt`"),
    ({"prompt": "a finch", "negative_promt": "x"}, "Did you mean `negative_prompt`"),
    ({"prompt": "a finch", "image": {"widht": 8}}, "image.widht = 8: unknown key; .* Did you mean `width`"),
    ("a finch", "input: 'a finch' of type str; wanted a dict such as {'prompt'"),
    ({"prompt": "a finch", "seed": 1.5}, "^seed = 1.5: must be a whole number$"),
    ({"prompt": "a finch", "seed": "7"}, "^seed = '7': must be a whole number$"),
    ({"prompt": "a finch", "seed": True}, "^seed = True: must be a whole number$"),
    ({"prompt": "a finch", "seed": None}, "^seed = None: must be a whole number$"),
    ({"prompt": "a finch", "seed": -1}, "^seed = -1: must be at least 0$"),
    ({"prompt": "a finch", "seed": 2**63}, f"^seed = {2**63}: must be at most {2**63 - 1}$"),
    ({"prompt": "a finch", "run_id": 7}, "^run_id = 7: must be a text$"),
    ({"prompt": "a finch", "width": 0}, "^image.width = 0: must be greater than 0$"),
    ({"prompt": "a finch", "width": 10**9 * 8}, "^image.width = 8000000000: must be at most 8192$"),
    ({"prompt": "a finch", "width": "64"}, "^image.width = '64': must be a whole number$"),
    ({"prompt": "a finch", "height": 12}, "^image.height = 12: must be a multiple of 8$"),
    ({"prompt": "a finch", "guidance_scale": "x"}, "^image.guidance_scale = 'x': must be a number$"),
    ({"prompt": "a finch", "negative_prompt": 1}, "^image.negative_prompt = 1: must be a text$"),
    ({"prompt": "a finch", "width": 64, "image": {"width": 32}}, "width = 64: image.width is 32"),
    ({"prompt": "a finch", "image": 3}, "^image = 3: must be a table"),
    ({"prompt": 3}, "^prompt = 3: must be a text$"),
    ({"seed": 3}, "^prompt: required, but missing$"),
    ({"prompt": "a finch", "budget": 3}, "^budget = 3: must be a table$"),
    ({"prompt": "a finch", "budget": {"attempts": -1}}, "^budget.attempts = -1: must be at least 0$"),
    ({"prompt": "a finch", "budget": {"usd": math.nan}}, "^budget.usd = nan: must be a finite number$"),
    ({"prompt": "a finch", "budget": {"euro": 1}}, "^budget.euro = 1: unknown key; accepted: attempts, "),
]


@pytest.mark.parametrize(("values", "error"), WRONG)
@pytest.mark.parametrize("name", GRAPHS)
def test_an_error_of_the_input_is_one_line(tmp_path: Path, name: str, values: Any, error: str) -> None:
    with pytest.raises(BadInput, match=error) as caught:
        graph_of(name).invoke(values, context=make_context(tmp_path, lambda *_: ""))
    assert "\n" not in str(caught.value)
