"""Every packaged profile names engines that exist, arguments that they have, and models at a commit."""

import re
from pathlib import Path

import pytest
from openai.types import image_model
from openai.types.shared import chat_model

from pleinair.app.engines import build_backend, check
from pleinair.app.settings import Settings, load, profiles
from pleinair.tools.diffusion.families import IN_CONTEXT
from pleinair.tools.http.prices import price_of
from pleinair.tools.types import BadInput, Generator

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB = ("in_context", "ip_adapter", "controlnet", "text_only")
NAMES = sorted(set(profiles()) - {"pocket", "openai"})
PARTS = ("", "adapter_", "controlnet_")


def commits(settings: Settings) -> list[str]:
    """List the revisions of the hub models that a generator loads."""
    table = settings.generator.arguments
    return [str(table[f"{part}revision"]) for part in PARTS if f"{part}revision" in table]


@pytest.fixture(params=NAMES)
def settings(request: pytest.FixtureRequest) -> Settings:
    return load(str(request.param))


def test_its_engines_are_installed(settings: Settings) -> None:
    check(settings)


def test_its_generator_is_built_or_asks_for_a_commit(settings: Settings) -> None:
    """Nothing is downloaded: weights are loaded at the first picture."""
    if settings.generator.backend not in HUB or all(map(COMMIT.fullmatch, commits(settings))):
        built: Generator = build_backend("generator", settings.generator)
        table = settings.generator.arguments
        assert built.capabilities.slots == table.get("slots", built.capabilities.slots)
        assert (built.capabilities.height, built.capabilities.width) == (table["height"], table["width"])
    else:
        with pytest.raises(BadInput, match=r"Set generator\.\w*revision to a commit"):
            build_backend("generator", settings.generator)


def test_a_profile_with_a_commit_to_fill_in_takes_one_by_setting(settings: Settings) -> None:
    table = settings.generator.arguments
    given = {f"generator.{part}revision": "a" * 40 for part in PARTS if table.get(f"{part}revision") == ""}
    filled = load(settings.profile, given)
    built: Generator = build_backend("generator", filled.generator)
    assert all(commit in built.capabilities.id for commit in commits(filled))


def test_hub_models_are_never_named_by_a_branch(settings: Settings) -> None:
    assert all(commit == "" or COMMIT.fullmatch(commit) for commit in commits(settings))


def test_all_profiles_share_their_encoder_and_language_model(settings: Settings) -> None:
    first = load(NAMES[0])
    assert (settings.encoder, settings.mllm) == (first.encoder, first.mllm)
    assert settings.encoder.arguments["model"] == "ViT-B-32"  # ImageRAG's


@pytest.mark.parametrize("name", ["vllm_omni", "sglang"])
def test_a_server_is_asked_for_a_model_that_draws_both_ways_by_the_fields_that_are_sent(name: str) -> None:
    """A draft has no references; what the same model is here tells which field its guidance has."""
    asked = load(name).generator.arguments
    here = (load(one).generator.arguments for one in NAMES if load(one).generator.backend == "in_context")
    pipeline = next(one["pipeline"] for one in here if one["model"] == asked["model"])
    family = IN_CONTEXT[pipeline]
    assert (
        not family.text_pipeline
        and family.guidance == "guidance_scale"
        and family.default_negative_prompt is None
    )
    assert asked["slots"] <= family.slots


def openai_models() -> tuple[set[str], set[str]]:
    """Read openai's own lists: every name, and those that were shut down or will be."""
    named, ending = set[str](), set[str]()
    for module in (image_model, chat_model):
        listed, _, deprecated = Path(str(module.__file__)).read_text("utf-8").partition("Deprecated values")
        named.update(re.findall(r'"([\w.-]+)",', listed))
        for entry in deprecated.split("\n- ")[1:]:
            ending.update(re.findall(r'"([\w.-]+)"', entry))
    return named, ending


@pytest.mark.parametrize("name", sorted({*NAMES, "openai"}))
def test_no_hosted_model_is_named_whose_end_is_announced(name: str) -> None:
    named, ending = openai_models()
    assert {"gpt-image-1", "gpt-4.1-mini"} <= ending <= named
    settings = load(name)
    hosted = [settings.mllm] + [settings.generator] * (settings.profile == "gpt_image")
    for choice in hosted:
        model = choice.arguments["model"]
        assert model in named - ending
        assert price_of(model, {}), "a run cannot be held to a budget of money without its price"
