"""RealRAG's experiments (Lyu et al., ICML 2025): tables 1 to 5 on Stanford Cars and Dogs and Oxford Flowers.

The pool is the images to train of all data sets that are used together; the paper's has ImageNet's, too.
Ours where the paper says nothing: seeds, the training's options, which CLIP scores. The reflective and the
normal retriever are trained as `pleinair train retriever` does, before their first image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pleinair.app.settings import Settings, altered, assignments
from pleinair.evals.reproduce.experiment import Experiment, Options, Setup
from pleinair.evals.reproduce.generate import Work
from pleinair.evals.reproduce.plan import DOMAIN, Line, Queries, Sheet, Variant, numbered, sheet
from pleinair.evals.reproduce.records import key_of
from pleinair.evals.reproduce.results import Measures
from pleinair.evals.run import show_progress
from pleinair.tools.data_sets.data_set import DataSet
from pleinair.tools.retrieval.realrag.pairs import prompt_for

PROMPT = "A photo of a {}"
IMAGES = 10  # of a class
GENERATORS = {
    "Flux": ("flux.1-dev", "flux.1-schnell"),
    "OmniGen": ("omnigen-v1",),
    "Emu": ("emu2",),
    "SD V2.1": ("stable-diffusion-2-1",),
    "SDXL": ("stable-diffusion-xl",),
    "SD V3": ("stable-diffusion-3",),
}
MEASURES: Measures = {
    "CLIP-I": (("CLIP-I",), 100),
    "CLIP-T": (("CLIP-T",), 100),
    "FID": (("FID", "Fréchet distance"), 1),
    "accuracy": (("accuracy",), 100),
}
_CLIP = "clip:ViT-L-14=laion2b_s32b_b82k"


def sheets(settings: Settings, options: Options) -> list[Sheet]:
    """Return the tables."""
    plain = Line("base model", Variant("base", "direct"), published={name: name for name in GENERATORS})
    reflective = _line("reflective", {name: f"{name} + RealRAG" for name in GENERATORS})
    ablation = [
        _line(method, {name: f"{name} {method}" for name in GENERATORS})
        for method in ("zero", "normal", "reflective")
    ]
    tables = [("1", [plain, reflective]), ("2", [plain, reflective]), ("3", ablation), ("5", ablation)]
    return [_without_averages(sheet(f"realrag/{number}", lines)) for number, lines in tables]


def _without_averages(each: Sheet) -> Sheet:
    return replace(each, columns=tuple(column for column in each.columns if not column.startswith("average")))


def _line(method: str, published: dict[str, str]) -> Line:
    trained = "" if method == "zero" else method
    variant = Variant(method, "realrag", {"realrag.method": method}, trained)
    return Line(f"RealRAG, {method}", variant, DOMAIN, published)


def retriever(settings: Settings, options: Options, line: Line, pool: str) -> Mapping[str, Any]:
    """Return the encoder of a trained row; another generator, encoder, option or pool is another folder."""
    if not (loss := line.variant.trained):
        return {}
    facts = settings.model_dump(mode="json", include={"generator", "encoder", "image"})
    name = f"{loss}-{key_of(facts, options.training, options.seed, pool)}"
    folder = options.out.absolute() / "retrievers" / name
    return {"encoder": {"backend": "reflective", "folder": str(folder)}}


def class_test(data_set: DataSet, options: Options) -> Queries:
    """Return ten prompts a class, with all its test images to compare with; the pool is the other split.

    The caption of an image of the pool is the prompt of its class, which the training pairs with it.
    """
    classes = data_set.classes("test", limit=options.limit)
    prompts = ((PROMPT.format(name), name, tuple(map(data_set.file, real))) for name, real in classes)
    subjects = tuple(numbered(prompts, options.images or IMAGES, options.seed))
    names = {name for name, _ in classes}
    pool = tuple(
        replace(example, captions=(prompt_for(example.class_name),))
        for example in data_set.split("train")
        if example.class_name in names
    )
    how = f"{len(classes)} of {len(data_set.class_names)} classes, {len(pool):,} images of these in the pool"
    return Queries(subjects, pool, how)


def samples(setup: Setup, works: Sequence[Work]) -> int:
    """Return the images that trainings generate, which they share: some for each prompt of the pool."""
    needing = [
        work for work in works if work.line.variant.trained == "reflective" and setup.studio.left(work)
    ]
    if not needing or all(_is_trained(work) for work in needing):
        return 0
    prompts = {
        caption for test in setup.tests.values() for example in test.pool for caption in example.captions
    }
    return len(prompts) * int(_training_options(setup.options, "reflective").samples)


def _is_trained(work: Work) -> bool:
    return any(_folder(work).glob("epoch-*"))


def _folder(work: Work) -> Path:
    return Path(str(work.settings.encoder.arguments["folder"]))


def _training_options(options: Options, loss: str) -> Any:
    from pleinair.tools.arguments import validated
    from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions

    values = {"seed": options.seed} | assignments(options.training) | {"loss": loss}
    return validated(ReflectiveOptions, values, "--train", "a training")


def train(setup: Setup, work: Work) -> None:
    """Train an arm's retriever, or go on where a stopped command left it."""
    from contextlib import contextmanager

    from pleinair.app.trainings.retriever import train_retriever

    loss, pools = work.line.variant.trained, work.settings.library.folder
    settings = altered(
        setup.settings, {"library.folder": pools if isinstance(pools, str) else list(pools or ())}
    )

    @contextmanager
    def watch(title: str) -> Any:
        yield lambda done, total: show_progress(f"{loss} retriever: {title} {done}/{total}")

    lines = train_retriever(
        settings, _folder(work), _training_options(setup.options, loss), "captions", watch
    )
    for line in lines:
        show_progress(f"{loss} retriever: {line.splitlines()[0]}")


EXPERIMENT = Experiment(
    paper="realrag",
    title="RealRAG",
    sheets=sheets,
    test=class_test,
    measures=MEASURES,
    scorers={
        _CLIP: "laion/CLIP-ViT-L-14-laion2B-s32B-b82K, 1.7 GB; license: MIT",
        f"accuracy:{_CLIP}": "the same weights",
        "fid:WEIGHTS.pth": "torch-fidelity's weights-inception-2015-12-05-6726825d.pth, 95 MB; Apache-2.0",
    },
    generators=GENERATORS,
    numbers=("1", "2", "3", "4", "5"),
    images=IMAGES,
    joined=True,
    changes=retriever,
    samples=samples,
    train=train,
)
