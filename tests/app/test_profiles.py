"""Packaged profiles: existing backends, valid arguments, and models at a commit."""

import re
from pathlib import Path
from typing import Any

import pytest
from openai.types import image_model
from openai.types.shared import chat_model

from pleinair.app.engines import build_backend, check, declared_capabilities
from pleinair.app.settings import Settings, load, profiles
from pleinair.tools.diffusion.families import IN_CONTEXT
from pleinair.tools.http.prices import price_of
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.model_files.open_clip import hub_location
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


def test_its_backends_are_installed(settings: Settings) -> None:
    check(settings)


def test_its_generator_is_built_or_requires_a_commit(settings: Settings) -> None:
    """Nothing is downloaded: weights are loaded for the first image."""
    if settings.generator.backend not in HUB or all(map(COMMIT.fullmatch, commits(settings))):
        built: Generator = build_backend("generator", settings.generator)
        table = settings.generator.arguments
        assert built.capabilities.slots == table.get("slots", built.capabilities.slots)
        assert (built.capabilities.height, built.capabilities.width) == (table["height"], table["width"])
    else:
        with pytest.raises(BadInput, match=r"Set generator\.\w*revision to a commit"):
            build_backend("generator", settings.generator)


def test_a_missing_commit_can_be_set(settings: Settings) -> None:
    table = settings.generator.arguments
    overrides = {
        f"generator.{part}revision": "a" * 40 for part in PARTS if table.get(f"{part}revision") == ""
    }
    filled = load(settings.profile, overrides)
    built: Generator = build_backend("generator", filled.generator)
    assert all(commit in built.capabilities.id for commit in commits(filled))


def test_hub_models_are_never_at_a_branch(settings: Settings) -> None:
    assert all(commit == "" or COMMIT.fullmatch(commit) for commit in commits(settings))


def test_all_profiles_share_their_encoder_and_language_model(settings: Settings) -> None:
    first = load(NAMES[0])
    assert (settings.encoder, settings.mllm) == (first.encoder, first.mllm)
    assert settings.encoder.arguments == {"model": "ViT-B-32", "revision": "openai"}  # ImageRAG's
    assert hub_location(settings.encoder.arguments) == (
        "timm/vit_base_patch32_clip_224.openai",
        "a6f597a30f7b82c51704746581f9a4e41421e878",
    )


# as ImageRAG's authors run OmniGen and SDXL
AUTHORS = "monochrome, lowres, bad anatomy, worst quality, low quality"
PUBLISHED: dict[str, dict[str, Any]] = {
    "omnigen": {
        "generator": {
            "slots": 3,
            "guidance_scale": 2.5,
            "options": {"img_guidance_scale": 1.6},
            "num_inference_steps": 50,
            "reference_size": 1024,
            "height": 1024,
            "width": 1024,
        },
        "template": "images",
        "negative_prompt": None,
    },
    "sdxl": {
        "generator": {
            "slots": 1,
            "scale": 0.5,
            "num_inference_steps": 50,
            "adapter_weight": "ip-adapter-plus_sdxl_vit-h.safetensors",
            "adapter_subfolder": "sdxl_models",
            "image_encoder": "models/image_encoder",
        },
        "template": "image",
        "negative_prompt": AUTHORS,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_profiles_of_imagerag_have_its_published_values(name: str) -> None:
    settings, published = load(name), PUBLISHED[name]
    arguments = settings.generator.arguments
    assert {key: arguments[key] for key in published["generator"]} == published["generator"]
    assert settings.imagerag == ImageRAGOptions(template=published["template"])
    assert settings.image.negative_prompt == published["negative_prompt"]


def test_every_profile_with_references_has_a_template_of_imagerag_that_fits(settings: Settings) -> None:
    capabilities = declared_capabilities(settings)
    pipeline = settings.generator.arguments.get("pipeline", "")
    expected = "images" if pipeline in IN_CONTEXT and IN_CONTEXT[pipeline].placeholders else "examples"
    if settings.generator.backend in ("ip_adapter", "controlnet"):
        expected = "image"
    assert settings.imagerag.template == (expected if capabilities.slots else "plain")


def test_a_request_replaces_the_negative_prompt_of_a_profile() -> None:
    for value in ("snow", ""):
        assert load("sdxl", {"image.negative_prompt": value}).image.negative_prompt == value
    check(load("klein", {"image.negative_prompt": ""}))  # none, which any generator takes
    with pytest.raises(BadInput, match=r"image.negative_prompt = 'snow': generator .* does not take it"):
        check(load("klein", {"image.negative_prompt": "snow"}))


@pytest.mark.parametrize("name", ["vllm_omni", "sglang"])
def test_a_server_profile_has_a_model_that_works_with_and_without_references(name: str) -> None:
    """A draft has no references; the same model in a local profile shows the field of its guidance."""
    arguments = load(name).generator.arguments
    generators = [load(profile).generator for profile in NAMES]
    local = (choice.arguments for choice in generators if choice.backend == "in_context")
    pipeline = next(table["pipeline"] for table in local if table["model"] == arguments["model"])
    family = IN_CONTEXT[pipeline]
    assert (
        not family.text_pipeline
        and family.guidance == "guidance_scale"
        and family.default_negative_prompt is None
    )
    assert arguments["slots"] <= family.slots


def openai_models() -> tuple[set[str], set[str]]:
    """Return the model names of the openai package, and those that are deprecated."""
    names, ending = set[str](), set[str]()
    for module in (image_model, chat_model):
        listed, _, deprecated = Path(str(module.__file__)).read_text("utf-8").partition("Deprecated values")
        names.update(re.findall(r'"([\w.-]+)",', listed))
        for entry in deprecated.split("\n- ")[1:]:
            ending.update(re.findall(r'"([\w.-]+)"', entry))
    return names, ending


@pytest.mark.parametrize("name", sorted({*NAMES, "openai"}))
def test_no_hosted_model_is_deprecated(name: str) -> None:
    names, ending = openai_models()
    assert {"gpt-image-1", "gpt-4.1-mini"} <= ending <= names
    settings = load(name)
    hosted = [settings.mllm] + [settings.generator] * (settings.profile == "gpt_image")
    for choice in hosted:
        model = choice.arguments["model"]
        assert model in names - ending
        assert price_of(model, {}), "a budget of money needs its price"
