"""The papers' graphs over the generators that the papers name: classes of diffusers, thousands of weights.

What such a model is called with is what is looked at: slots, templates, placeholders, scales, pictures.
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
from support.fake_engines import ListRetriever, call
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
from pleinair.tools.types import Attempt, Generator, Hit

# diffusers' own: SDXL's scheduler hands numbers to numpy in the old way, FLUX.1's branch imports an old name
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

PROMPT = "a finch by a coupe"
NAMES = ("finch", "coupe", "fig", "fen")
SMALL: dict[str, Any] = {"height": 32, "width": 32, "reference_size": 32, "num_inference_steps": 2}
PLACE = "<img><|image_{}|></img>"


class Shelf(ListRetriever):
    """Find one picture for each name's caption, each of another brightness, and one for the prompt."""

    training: Training | None = None

    def __init__(self) -> None:
        hits = {f"a photo of a {name}": [Hit(id=f"{name}.png", score=0.5)] for name in NAMES}
        super().__init__(hits | {PROMPT: [Hit(id="prompt.png", score=0.5)]})

    def open(self, id: str) -> Image.Image:
        return Image.linear_gradient("L").rotate(90 * (len(id) % 4)).convert("RGB")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """More threads only wait for each other in models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Keep what the pipeline classes that the test names are called with; they draw all the same."""
    kept: list[dict[str, Any]] = []
    for name in request.param:
        listen(monkeypatch, getattr(diffusers, name), kept)
    return kept


def listen(monkeypatch: pytest.MonkeyPatch, kind: Any, kept: list[dict[str, Any]]) -> None:
    inner = kind.__call__

    @wraps(inner)  # the engine reads its arguments' names
    def called(self: Any, *args: Any, **given: Any) -> Any:
        kept.append(given)
        return inner(self, *args, **given)

    monkeypatch.setattr(kind, "__call__", called)


def studio(folder: Path, generator: Generator, **options: Any) -> Context:
    """Ask a model that always misses all four names, over the shelf."""
    return Context(
        model=recording(ImageRAGAnswers(*NAMES)),
        generator=generator,
        retriever=Shelf(),
        store=ArtifactStore(folder / "artifacts"),
        imagerag=ImageRAGOptions.model_validate(options),
    )


def drawn_by_imagerag(context: Context) -> tuple[list[Attempt], list[np.ndarray]]:
    """Run the graph; give its two attempts and their pixels."""
    output = call(imagerag.graph, context, PROMPT, seed=7)
    return output.attempts, pixels(context, output)


def pixels(context: Context, output: Output) -> list[np.ndarray]:
    return [np.asarray(context.store.open(one.picture)) for one in output.attempts]


def of_profile(name: str, *keys: str) -> dict[str, Any]:
    """Take numbers of the generator from a shipped profile."""
    table = load(name).generator.arguments
    return {key: table[key] for key in keys}


@pytest.mark.parametrize("calls", [["OmniGenPipeline"]], indirect=True)
def test_imagerag_gives_omnigen_three_pictures_by_their_placeholders(
    tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    known = of_profile("omnigen", "pipeline", "slots", "guidance_scale", "options")
    engine = InContext(str(tiny.save(tiny.omnigen, tmp_path / "model")), **known, **SMALL)
    context = studio(tmp_path, engine, **load("omnigen").imagerag.model_dump())
    (draft, final), (first, second) = drawn_by_imagerag(context)
    model: Any = context.model
    assert payloads(model.conversation("MissingConcepts"))[-1]["at_most"] == 3
    pairs = ", ".join(f"a photo of a {name}: {PLACE.format(n)}" for n, name in enumerate(NAMES[:3], 1))
    said = f"According to these images of {pairs}, generate {PROMPT}"
    assert [one["prompt"] for one in calls] == [PROMPT, said]
    assert [len(one.get("input_images", [])) for one in calls] == [0, 3]
    assert {(one["guidance_scale"], one["img_guidance_scale"]) for one in calls} == {(2.5, 1.6)}
    assert draft.request.seed == final.request.seed == 7
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("calls", [["StableDiffusionXLPipeline"]], indirect=True)
def test_imagerag_gives_sdxl_one_picture_by_ip_adapter_plus_at_half_scale(
    tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    folder = tiny.save(tiny.sdxl, tmp_path / "base")
    tiny.save_ip_adapter(tiny.sdxl().unet, tmp_path / "adapter")
    adapter: dict[str, Any] = {
        "adapter_folder": str(tmp_path / "adapter"),
        "adapter_subfolder": "models",
        "adapter_weight": "plus.safetensors",
    }
    known = of_profile("sdxl", "pipeline", "slots", "guidance_scale", "scale", "image_encoder")
    engine = IpAdapter(str(folder), **known, **adapter, **SMALL)
    context = studio(tmp_path, engine, **load("sdxl").imagerag.model_dump())
    _, (first, second) = drawn_by_imagerag(context)
    said = f"According to this image of a photo of a finch, generate {PROMPT}"
    assert [one["prompt"] for one in calls] == [PROMPT, said]
    ((shown,),) = calls[1]["ip_adapter_image"]
    assert shown.size == (32, 32)
    assert scales(engine) == {0.5}
    assert not np.array_equal(first, second)


def scales(engine: IpAdapter) -> set[float]:
    """Read the scale off the processors that hold the adapter, as the last picture left it."""
    (pipeline,) = {id(one): one for one in engine._pipelines.values()}.values()
    processors = pipeline.unet.attn_processors.values()
    return {scale for one in processors if hasattr(one, "scale") for scale in one.scale}


@pytest.mark.parametrize("calls", [["FluxKontextPipeline"]], indirect=True)
def test_imagerag_gives_flux1_one_picture_in_context(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    """The paper's third generator is FLUX.1 with OminiControl, for which diffusers has no class."""
    known = of_profile("kontext", "pipeline", "slots", "guidance_scale")
    small: dict[str, Any] = {"max_sequence_length": 24, "options": {"_auto_resize": False}}
    engine = InContext(str(tiny.save(tiny.kontext, tmp_path / "model")), **known, **small, **SMALL)
    _, (first, second) = drawn_by_imagerag(studio(tmp_path, engine))
    assert [one.get("image") is not None for one in calls] == [False, True]
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
def test_realrag_gives_the_control_branch_what_the_prompt_found(
    tmp_path: Path, calls: list[dict[str, Any]], profile: str
) -> None:
    base, branch = BRANCHES[profile]
    known = of_profile(profile, "pipeline", "control", "controlnet_conditioning_scale", "guidance_scale")
    engine = ControlNet(
        str(tiny.save(base, tmp_path / "base")),
        controlnet_folder=str(tiny.save(branch, tmp_path / "branch")),
        **known,
        **SMALL,
    )
    shelf = Shelf()
    shelf.training = Training(loss="reflective", generator=engine.capabilities.id)
    context = replace(studio(tmp_path, engine), retriever=shelf)
    output = call(realrag.graph, context, PROMPT, seed=7)
    (given,), (attempt,) = calls, output.attempts
    shown = given.get("image") or given["control_image"]
    found = crop_to_size(shelf.open("prompt.png"), 32, 32)
    wanted = mosaic(found) if known["control"] == "mosaic" else found
    assert np.array_equal(np.asarray(shown), np.asarray(wanted))
    assert given["controlnet_conditioning_scale"] == known["controlnet_conditioning_scale"]
    assert given["prompt"] == PROMPT
    plain = attempt.request.model_copy(update={"references": ()})
    assert not np.array_equal(pixels(context, output)[0], np.asarray(engine.generate(plain, [], no_callback)))
