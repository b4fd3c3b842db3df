"""Options and names of what Ray Serve holds; Ray itself is in tests/outside."""

import pytest
from pydantic import ValidationError

from pleinair.tools.cluster.ray_serve import Part, RayGenerator, ReplicaOptions, ServeOptions, app_name
from pleinair.tools.types import BadInput, GenerateRequest

REQUEST = GenerateRequest(
    prompt="a hoopoe", height=64, width=64, num_inference_steps=1, guidance_scale=1, seed=1
)


@pytest.mark.parametrize(
    "values",
    [
        {"min_replicas": 3, "max_replicas": 2},
        {"num_gpus": 1.5},
        {"num_gpus": -1},
        {"num_cpus": 0},
        {"target_ongoing_requests": 0},
        {"app": "two words"},
        {"replicas": 2},
    ],
)
def test_unusable_options_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        ReplicaOptions.model_validate(values)


def test_fractions_and_whole_gpus_are_accepted() -> None:
    assert [ReplicaOptions(num_gpus=count).num_gpus for count in (0, 0.25, 1, 2)] == [0, 0.25, 1, 2]


def test_nothing_is_served_by_default() -> None:
    assert (ServeOptions().generator, ServeOptions().encoder) == (None, None)


def test_applications_are_named_by_kind_unless_set() -> None:
    assert app_name("generator", ReplicaOptions()) == "pleinair-generator"
    assert app_name("encoder", ReplicaOptions(app="clip")) == "clip"


def test_a_part_is_the_same_whatever_the_order_of_its_arguments() -> None:
    one, other = {"folder": "a", "slots": 1}, {"slots": 1, "folder": "a"}
    assert Part.of("generator", "in_context", one) == Part.of("generator", "in_context", other)
    assert Part.of("generator", "in_context", one) != Part.of("generator", "in_context", one | {"slots": 2})


def test_a_call_without_an_address_says_which_setting_is_missing() -> None:
    with pytest.raises(BadInput, match=r"cluster\.ray is not set"):
        RayGenerator("in_context", {}, "", "pleinair-generator").generate(REQUEST, [], lambda *_: None)
