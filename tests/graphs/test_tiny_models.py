"""The papers' graphs with the generators that the papers name: diffusers' classes with tiny random weights.

The tests check the arguments of the pipelines: slots, templates, placeholders, scales and images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from support import tiny_pipelines as tiny
from support.fake_engines import ListRetriever
from support.fake_engines import call as run
from support.recording_chat import ImageRAGAnswers, payloads, recording

from pleinair.agent.context import Context
from pleinair.agent.state import Output
from pleinair.app.settings import load
from pleinair.graphs import imagerag, realrag
from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.controlnet import ControlNet, crop_to_size, mosaic
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.ip_adapter import IpAdapter
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.realrag import Training
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Attempt, BadInput, Generator, Hit

# diffusers' own: SDXL's scheduler uses an old numpy interface, FLUX.1's branch imports an old name
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

PROMPT = "a finch by a coupe"
NAMES = ("finch", "coupe", "fig", "fen")
SMALL: dict[str, Any] = {"height": 32, "width": 32, "reference_size": 32, "num_inference_steps": 2}
PLACE = "<img><|image_{}|></img>"


class Shelf(ListRetriever):
    """Library with an image for each name's caption, each rotated differently, and one for the prompt."""

    training: Training | None = None

    def __init__(self) -> None:
        hits = {f"a photo of a {name}": [Hit(id=f"{name}.png", score=0.5)] for name in NAMES}
        super().__init__(hits | {PROMPT: [Hit(id="prompt.png", score=0.5)]})

    def open(self, id: str) -> Image.Image:
        return Image.linear_gradient("L").rotate(90 * (len(id) % 4)).convert("RGB")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread: more only wait for each other in models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Record the arguments of the pipeline classes of the test, which generate as usual."""
    arguments: list[dict[str, Any]] = []
    for name in request.param:
        record(monkeypatch, getattr(diffusers, name), arguments)
    return arguments


def record(monkeypatch: pytest.MonkeyPatch, pipeline: Any, arguments: list[dict[str, Any]]) -> None:
    inner = pipeline.__call__

    @wraps(inner)  # the engine reads its arguments' names
    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments.append(kwargs)
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(pipeline, "__call__", recorded)


def studio(folder: Path, generator: Generator, **options: Any) -> Context:
    """Build a context with the shelf, and a model that finds all four names missing."""
    return Context(
        model=recording(ImageRAGAnswers(*NAMES)),
        generator=generator,
        retriever=Shelf(),
        store=ArtifactStore(folder / "artifacts"),
        imagerag=ImageRAGOptions.model_validate(options),
    )


def run_imagerag(
    context: Context, prompt: str = PROMPT, **inputs: Any
) -> tuple[list[Attempt], list[np.ndarray]]:
    """Run the graph; return its two attempts and their pixels."""
    output = run(imagerag.graph, context, prompt, seed=7, **inputs)
    return output.attempts, pixels(context, output)


def pixels(context: Context, output: Output) -> list[np.ndarray]:
    return [np.asarray(context.store.open(attempt.picture)) for attempt in output.attempts]


def profile_arguments(name: str, *keys: str) -> dict[str, Any]:
    """Return generator arguments of a shipped profile."""
    table = load(name).generator.arguments
    return {key: table[key] for key in keys}


@pytest.mark.parametrize("calls", [["OmniGenPipeline"]], indirect=True)
@pytest.mark.parametrize("template", ["examples", "images"])
def test_imagerag_passes_omnigen_three_images_by_their_placeholders(
    tmp_path: Path, calls: list[dict[str, Any]], template: str
) -> None:
    values = profile_arguments("omnigen", "pipeline", "slots", "guidance_scale", "options")
    engine = InContext(str(tiny.save(tiny.omnigen, tmp_path / "model")), **values, **SMALL)
    options = load("omnigen", {"imagerag.template": template}).imagerag
    context = studio(tmp_path, engine, **options.model_dump())
    (draft, final), (first, second) = run_imagerag(context)
    model: Any = context.model
    assert payloads(model.conversation("MissingConcepts"))[-1]["at_most"] == 3
    pairs = ", ".join(f"a photo of a {name}: {PLACE.format(n)}" for n, name in enumerate(NAMES[:3], 1))
    prompt = f"According to these {template} of {pairs}, generate {PROMPT}"
    assert [call["prompt"] for call in calls] == [PROMPT, prompt]
    assert [len(call.get("input_images", [])) for call in calls] == [0, 3]
    assert {(call["guidance_scale"], call["img_guidance_scale"]) for call in calls} == {(2.5, 1.6)}
    assert draft.request.seed == final.request.seed == 7
    assert not np.array_equal(first, second)


CAT, OTHER = PLACE.format(1), PLACE.format(2)
FINCH = f"a photo of a finch: {PLACE.format(2)}"


@pytest.mark.parametrize("calls", [["OmniGenPipeline"]], indirect=True)
@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        (
            "my cat riding a finch",
            [
                f"According to these images of {CAT}, generate my cat riding a finch",
                f"According to these images of {CAT}, {FINCH}, generate my cat riding a finch",
            ],
        ),
        *(
            (
                f"my cat {name} riding a finch",
                [
                    f"my cat {CAT} riding a finch",
                    f"According to these images of {FINCH}, generate my cat {CAT} riding a finch",
                ],
            )
            for name in ("<|image_1|>", CAT)
        ),
    ],
)
def test_imagerag_personalises_with_omnigen_however_the_prompt_names_the_input_image(
    tmp_path: Path, calls: list[dict[str, Any]], prompt: str, sent: list[str]
) -> None:
    values = profile_arguments("omnigen", "pipeline", "guidance_scale", "options")
    engine = InContext(str(tiny.save(tiny.omnigen, tmp_path / "model")), slots=2, **values, **SMALL)
    context = studio(tmp_path, engine, **load("omnigen").imagerag.model_dump())
    cat = Image.radial_gradient("L").convert("RGB")
    (draft, final), (first, second) = run_imagerag(context, prompt, pictures=[context.store.put(cat)])
    assert [call["prompt"] for call in calls] == sent
    shown = [[image.getpixel((0, 0)) for image in call["input_images"]] for call in calls]
    assert [len(images) for images in shown] == [1, 2]
    assert shown[0][0] == shown[1][0] != shown[1][1]  # the cat first
    assert [len(attempt.request.references) for attempt in (draft, final)] == [1, 2]
    assert not np.array_equal(first, second)


def test_a_query_by_the_prompt_has_no_placeholder(tmp_path: Path) -> None:
    values = profile_arguments("omnigen", "pipeline", "options")
    engine = InContext(str(tiny.save(tiny.omnigen, tmp_path / "model")), slots=2, **values, **SMALL)
    context = studio(tmp_path, engine, template="images", retrieve_by="prompt")
    cat = context.store.put(Image.radial_gradient("L").convert("RGB"))
    output = run(imagerag.graph, context, "a finch by a <|image_1|> coupe", seed=7, pictures=[cat])
    assert [retrieval.query for retrieval in output.retrievals] == [PROMPT]
    sentence = f"According to these images of {PROMPT}: {OTHER}, generate"
    assert output.attempts[1].request.prompt == f"{sentence} a finch by a <|image_1|> coupe"


def test_a_placeholder_of_no_input_image_is_refused_before_the_draft(tmp_path: Path) -> None:
    values = profile_arguments("omnigen", "pipeline", "options")
    engine = InContext(str(tiny.save(tiny.omnigen, tmp_path / "model")), **values, **SMALL)
    context = studio(tmp_path, engine)
    with pytest.raises(BadInput, match=r"<\|image_2\|> names an image that does not exist; 1 input image"):
        run(
            imagerag.graph,
            context,
            "my cat <|image_2|>",
            pictures=[context.store.put(Image.new("RGB", (8, 8)))],
        )
    model: Any = context.model
    assert not model.calls


@pytest.mark.parametrize("calls", [["StableDiffusionXLPipeline"]], indirect=True)
def test_imagerag_passes_sdxl_one_image_by_ip_adapter_plus_at_half_scale(
    tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    folder = tiny.save(tiny.sdxl, tmp_path / "base")
    tiny.save_ip_adapter(tiny.sdxl().unet, tmp_path / "adapter")
    adapter: dict[str, Any] = {
        "adapter_folder": str(tmp_path / "adapter"),
        "adapter_subfolder": "models",
        "adapter_weight": "plus.safetensors",
    }
    values = profile_arguments("sdxl", "pipeline", "slots", "guidance_scale", "scale", "image_encoder")
    engine = IpAdapter(str(folder), **values, **adapter, **SMALL)
    context = studio(tmp_path, engine, **load("sdxl").imagerag.model_dump())
    _, (first, second) = run_imagerag(replace(context, image=load("sdxl").image))
    prompt = f"According to this image of a photo of a finch, generate {PROMPT}"
    assert [call["prompt"] for call in calls] == [PROMPT, prompt]
    negative = "monochrome, lowres, bad anatomy, worst quality, low quality"
    assert [call["negative_prompt"] for call in calls] == [negative] * 2
    ((shown,),) = calls[1]["ip_adapter_image"]
    assert shown.size == (32, 32)
    assert scales(engine) == {0.5}
    assert not np.array_equal(first, second)


def scales(engine: IpAdapter) -> set[float]:
    """Return the scales of the adapter's attention processors after the last image."""
    (pipeline,) = {id(pipeline): pipeline for pipeline in engine._pipelines.values()}.values()
    processors = pipeline.unet.attn_processors.values()
    return {scale for item in processors if hasattr(item, "scale") for scale in item.scale}


@pytest.mark.parametrize("calls", [["FluxKontextPipeline"]], indirect=True)
def test_imagerag_passes_flux1_one_image_in_context(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    """Not the paper's third generator, FLUX.1 with OminiControl, for which diffusers has no class."""
    values = profile_arguments("kontext", "pipeline", "slots", "guidance_scale")
    small: dict[str, Any] = {"max_sequence_length": 24, "options": {"_auto_resize": False}}
    engine = InContext(str(tiny.save(tiny.kontext, tmp_path / "model")), **values, **small, **SMALL)
    context = studio(tmp_path, engine, **load("kontext").imagerag.model_dump())
    _, (first, second) = run_imagerag(context)
    assert [call.get("image") is not None for call in calls] == [False, True]
    prompt = f"According to these examples of a photo of a finch: image 1, generate {PROMPT}"
    assert [call["prompt"] for call in calls] == [PROMPT, prompt]
    assert not np.array_equal(first, second)


BRANCHES = {
    "controlnet_sd21": (tiny.sd15, tiny.branch_sd15),
    "controlnet_sdxl": (tiny.sdxl, tiny.branch_sdxl),
    "controlnet_sd3": (tiny.sd3, tiny.branch_sd3),
    "controlnet_flux1": (tiny.flux1, tiny.branch_flux1),
}
CLASSES = [load(name).generator.arguments["pipeline"] for name in BRANCHES]


@pytest.mark.parametrize("calls", [CLASSES], indirect=True)
@pytest.mark.parametrize("profile", BRANCHES)
def test_realrag_passes_the_control_branch_the_image_that_the_prompt_retrieves(
    tmp_path: Path, calls: list[dict[str, Any]], profile: str
) -> None:
    base, branch = BRANCHES[profile]
    values = profile_arguments(
        profile, "pipeline", "control", "controlnet_conditioning_scale", "guidance_scale"
    )
    engine = ControlNet(
        str(tiny.save(base, tmp_path / "base")),
        controlnet_folder=str(tiny.save(branch, tmp_path / "branch")),
        **values,
        **SMALL,
    )
    shelf = Shelf()
    shelf.training = Training(loss="reflective", generator=engine.capabilities.id)
    context = replace(studio(tmp_path, engine), retriever=shelf)
    output = run(realrag.graph, context, PROMPT, seed=7)
    (arguments,), (attempt,) = calls, output.attempts
    shown = arguments.get("image") or arguments["control_image"]
    image = crop_to_size(shelf.open("prompt.png"), 32, 32)
    expected = mosaic(image) if values["control"] == "mosaic" else image
    assert np.array_equal(np.asarray(shown), np.asarray(expected))
    assert arguments["controlnet_conditioning_scale"] == values["controlnet_conditioning_scale"]
    assert arguments["prompt"] == PROMPT
    plain = attempt.request.model_copy(update={"references": ()})
    assert not np.array_equal(pixels(context, output)[0], np.asarray(engine.generate(plain, [], no_callback)))
