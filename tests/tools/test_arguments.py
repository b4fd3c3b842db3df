"""Arguments of backends: what is refused without building one, ours and third parties' alike."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pleinair.app.settings import load, profiles
from pleinair.tools.arguments import check_values, checked, complaint, declare
from pleinair.tools.registry import Kind
from pleinair.tools.types import BadInput, Capabilities

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

KINDS: tuple[Kind, ...] = ("generator", "encoder", "mllm")


def backend(
    size: Annotated[int, Field(gt=0)],
    *,
    scale: float = 1.0,
    mode: Literal["a", "b"] = "a",
    layers: Sequence[int] = (),
    pair: tuple[int, int] = (1, 1),
    label: str | None = None,
) -> None:
    """Declare some arguments."""


def untyped(size, **options):  # type: ignore[no-untyped-def]
    """Declare nothing about arguments."""


def unresolvable(size: Vectors, scale: int = 1) -> None:
    """Declare a type that exists for type checkers only."""


class Model(BaseModel):
    """Declare ranges as pydantic does."""

    size: int = Field(default=1, gt=0)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (backend, {"size": 1, "scale": 2, "mode": "b", "layers": [1, 2], "pair": [3, 4], "label": None}),
        (untyped, {"size": "x", "anything": object()}),
        (unresolvable, {"size": 1, "scale": "x"}),
        (Model, {"size": 2, "other": "x"}),
    ],
)
def test_values_that_fit_or_cannot_be_checked_pass(make: Any, values: dict[str, Any]) -> None:
    check_values(make, values, "table")


@pytest.mark.parametrize(
    ("make", "key", "value", "words"),
    [
        (backend, "size", 0, "table.size = 0: must be greater than 0"),
        (backend, "size", "3", "table.size = '3': must be a whole number"),
        (backend, "size", 3.5, "table.size = 3.5: must be a whole number"),
        (backend, "size", True, "table.size = True: must be a whole number"),
        (backend, "scale", float("inf"), "table.scale = inf: must be a finite number"),
        (backend, "scale", float("nan"), "table.scale = nan: must be a finite number"),
        (backend, "mode", "c", "table.mode = 'c': must be 'a' or 'b'"),
        (backend, "layers", ["x"], "table.layers"),
        (backend, "pair", [1], "table.pair"),
        (backend, "label", 3, "table.label = 3: must be a text"),
        (Model, "size", 0, "table.size = 0: must be greater than 0"),
    ],
)
def test_a_value_outside_its_annotation_is_refused(make: Any, key: str, value: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        check_values(make, {key: value}, "table")


@pytest.mark.parametrize("name", sorted(profiles()))
def test_every_packaged_profile_has_usable_arguments(name: str) -> None:
    settings = load(name)
    for kind in KINDS:
        choice = getattr(settings, kind)
        declared = declare(kind, choice.backend, choice.arguments)
        assert isinstance(declared, Capabilities) == (kind == "generator")


@pytest.mark.parametrize("name", sorted(profiles()))
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_argument_is_refused_by_every_backend(name: str, kind: Kind) -> None:
    choice = getattr(load(name), kind)
    with pytest.raises(BadInput, match=f"{kind}.nope = 1: {kind} '.*' has no such argument; accepted: "):
        declare(kind, choice.backend, choice.arguments | {"nope": 1})


GENERATOR: list[tuple[dict[str, Any], str]] = [
    ({"height": 63}, "generator.height = 63: must be a multiple of 8"),
    ({"width": 0}, "generator.width = 0: must be greater than 0"),
    ({"heigth": 64}, "Did you mean `height`?"),
    ({"num_inference_steps": 0}, "generator.num_inference_steps = 0: must be greater than 0"),
    ({"num_inference_steps": 1001}, "at most 1000"),
    ({"num_inference_steps": 2.5}, "must be a whole number"),
    ({"guidance_scale": -1}, "generator.guidance_scale = -1: must be at least 0"),
    ({"guidance_scale": float("nan")}, "generator.guidance_scale = nan: must be a finite number"),
    ({"guidance_scale": float("inf")}, "generator.guidance_scale = inf: must be a finite number"),
    ({"options": {"x": [1.0, float("nan")]}}, "generator.options.x = nan: must be a finite number"),
    ({"reference_size": 0}, "generator.reference_size = 0"),
    ({"slots": 5}, "slots = 5: Flux2KleinPipeline takes at most 4"),
    ({"draft_steps": 8}, "draft_steps = 8"),
    ({"memory": "magic"}, "memory = 'magic'"),
    ({"dtype": "int8"}, "dtype = 'int8'"),
    ({"pipeline": "Nope"}, "pipeline = 'Nope'"),
    ({"folder": "/nowhere"}, "No model folder at '/nowhere'"),
    ({"wording": "{"}, "generator.wording = '{'"),
    ({"memory_limit": 0}, "generator.memory_limit = 0"),
    ({"compile": "yes"}, "generator.compile = 'yes': must be true or false"),
    ({"api_key": "sk"}, "generator.api_key: secrets are not accepted"),
    ({"options": {"url": "https://me:pw@host"}}, "generator.options.url: passwords are not accepted"),
    ({"folder": date(2026, 1, 1)}, "generator.folder = 2026-01-01: must be a text"),
]


@pytest.mark.parametrize(("arguments", "words"), GENERATOR)
def test_a_bad_argument_of_a_generator_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as error:
        declare("generator", "in_context", load("pocket").generator.arguments | arguments)
    assert words in str(error.value)
    assert "pw" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": 0}, "encoder.batch = 0"),
        ({"threads": -1}, "encoder.threads = -1"),
        ({"precision": "int1"}, "encoder.precision = 'int1'"),
        ({"model": "local-dir:/nowhere"}, "No model folder at '/nowhere'"),
        ({"revision": "x"}, "encoder.revision = 'x'"),
    ],
)
def test_a_bad_argument_of_an_encoder_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        declare("encoder", "open_clip", load("pocket").encoder.arguments | arguments)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(BadInput, match="retrieval.second.model is missing: encoder 'open_clip' requires it"):
        checked("encoder", "open_clip", {}, "retrieval.second")


def test_a_model_at_no_commit_or_a_branch_is_declared_without_the_hub() -> None:
    arguments = {"model": "owner/tiny", "pipeline": "FluxKontextPipeline"}
    assert declare("generator", "in_context", arguments).slots == 1
    branch = arguments | {"revision": "main", "allow_branch": True}
    assert declare("generator", "in_context", branch).slots == 1
    with pytest.raises(BadInput, match=r"Set generator\.revision to a commit"):
        declare("generator", "in_context", arguments | {"revision": "main"})


def test_nothing_heavy_is_imported_for_a_check() -> None:
    code = """
import sys
from pleinair.app.engines import check
from pleinair.app.settings import load
check(load())
print([name for name in ("torch", "diffusers", "transformers", "open_clip", "faiss") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Kinds(BaseModel):
    """A field for each kind of value that arguments have."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    text: str = Field(default="a", min_length=1, max_length=3, pattern="^a")
    whole: int = Field(default=8, ge=0, lt=99, multiple_of=8)
    number: float = Field(default=1, gt=0.5, le=2)
    switch: bool = False
    mode: Literal["a", "b"] = "a"
    items: list[int] = Field(default=[1], min_length=1, max_length=2)
    table: dict[str, int] = {}
    model: Model = Model()
    nothing: None = None


KIND_ERRORS = [
    ("text", 3, "must be a text"),
    ("text", "", "must have at least 1 character"),
    ("text", "aaaa", "must have at most 3 characters"),
    ("text", "b", "must match ^a"),
    ("whole", "8", "must be a whole number"),
    ("whole", 8.5, "must be a whole number"),
    ("whole", -8, "must be at least 0"),
    ("whole", 104, "must be less than 99"),
    ("whole", 9, "must be a multiple of 8"),
    ("number", "1", "must be a number"),
    ("number", 0.5, "must be greater than 0.5"),
    ("number", 3, "must be at most 2"),
    ("number", math.inf, "must be a finite number"),
    ("switch", 1, "must be true or false"),
    ("mode", "c", "must be 'a' or 'b'"),
    ("items", 3, "must be a list"),
    ("items", [], "must have at least 1 item"),
    ("items", [1, 2, 3], "must have at most 2 items"),
    ("table", 3, "must be a table"),
    ("model", 3, "must be a table"),
    ("nothing", 3, "must be left out"),
    ("other", 3, "unknown key; accepted: text, whole, number, switch, mode, items, table, model, nothing."),
]


@pytest.mark.parametrize(("key", "value", "words"), KIND_ERRORS)
def test_a_complaint_is_the_key_the_value_and_what_is_required(key: str, value: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Kinds.model_validate_json(json.dumps({key: value}), strict=True)
    assert complaint(caught.value, Kinds, prefix="t.") == f"t.{key} = {value!r}: {words}"


def test_a_complaint_quotes_the_beginning_of_a_long_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Kinds.model_validate({"text": "a" * 500, "whole": "x"})
    assert len(complaint(caught.value, Kinds)) < 150
    assert "; whole = 'x': must be a whole number" in complaint(caught.value, Kinds, most=2)
