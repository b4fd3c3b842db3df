"""ImageRAG's experiments (Shalev-Arkushin et al., ICLR 2026): tables 1 to 8, figure 16, appendix E.5.

Ours where the paper says nothing: one image a class, seeds, ten real images a class to compare with, and the
prompt "A photo of a {class}", which is that of its examples and of appendix E.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pleinair.app.settings import BackendChoice, Settings
from pleinair.evals.reproduce.decisions import decisions
from pleinair.evals.reproduce.experiment import Experiment, Extra, Options
from pleinair.evals.reproduce.plan import (
    DOMAIN,
    GENERIC,
    NO_POOL,
    Line,
    Pool,
    Queries,
    Sheet,
    Variant,
    numbered,
    sheet,
)
from pleinair.evals.reproduce.results import Measures
from pleinair.tools.data_sets.data_set import DataSet

PROMPT = "A photo of a {}"
CLASSES = {"inaturalist": 1000}  # the first ones; of other data sets all
TRUTH = 10  # real images of a class to compare with
POOL_SIZES = (1_000, 10_000, 100_000, 350_000)
SECOND = {
    "backend": "open_clip",
    "model": "ViT-SO400M-14-SigLIP-384",
    "revision": "webli",
}  # the authors' code
GENERATORS = {  # the paper's, by a part of the names of their weights
    "OmniGen": ("omnigen-v1",),
    "SDXL": ("stable-diffusion-xl",),
    "FLUX": ("flux.1-schnell",),
}
MEASURES: Measures = {
    "CLIP": (("CLIP-T",), 1),
    "SigLIP": (("SigLIP-T",), 1),
    "DINO": (("DINO", "DINOv2"), 1),  # the paper cites another model of that name
    "CLIP-I": (("CLIP-I",), 1),
    "GPTScore": (("GPTScore prompt following", "GPTScore concept preservation"), 1),  # which is not said
}
_OURS = {"OmniGen": "ImageRAG-O", "FLUX": "ImageRAG-F", "SDXL": "ImageRAG-SD"}
_BASE = {name: name for name in _OURS}


def _second(settings: Settings) -> BackendChoice:
    return settings.retrieval.second or BackendChoice.model_validate(SECOND)


def sheets(settings: Settings, options: Options) -> list[Sheet]:
    """Return the tables; without a generic pool those that use one search the data set's own."""
    generic = options.generic is not None
    base = Variant("base", "direct")
    captions = Variant("captions", "imagerag", {"imagerag.retrieve_by": "captions"})
    pool = GENERIC if generic else DOMAIN
    plain = Line("base model", base, published=_BASE)
    ours = Line("ImageRAG, by captions", captions, pool, _OURS)
    domain = Line("ImageRAG, by captions", captions, DOMAIN, _proprietary("Proprietary"))
    laion = Line("ImageRAG, by captions", captions, GENERIC, _proprietary("LAION"))
    by_clip = Line("CLIP", captions, pool, {"OmniGen": "CLIP"})
    return [
        sheet("imagerag/1", (plain, ours)),
        sheet("imagerag/2", (plain, ours)),
        sheet("imagerag/3", (plain, *_ablations("OmniGen", pool), ours)),
        sheet("imagerag/4", (*_retrievals(settings, pool), by_clip)),
        sheet("imagerag/5", (plain, Line("ImageRAG, by captions", captions, DOMAIN, _OURS))),
        sheet("imagerag/6", (laion, domain)),
        sheet("imagerag/8", (plain, *_ablations("SDXL", pool), ours)),
        _pool_curve(plain, captions, options.pool_sizes or POOL_SIZES),
    ]


def _proprietary(pool: str) -> dict[str, str]:
    """Return the rows of tables 6 and 7; those of FLUX are no targets."""
    return {"OmniGen": f"{pool}-O", "SDXL": f"{pool}-SD"}


def _ablations(generator: str, pool: Pool) -> list[Line]:
    rows: list[tuple[str, str, dict[str, Any], Pool]] = [
        ("rephrased", "rephrased prompt", {"imagerag.rephrase_only": True}, NO_POOL),
        ("concepts", "retrieve by concepts", {"imagerag.retrieve_by": "concepts"}, pool),
        ("prompt", "retrieve by prompt", {"imagerag.retrieve_by": "prompt"}, pool),
    ]
    return [
        Line(title, Variant(name, "imagerag", changes), pool, {generator: title})
        for name, title, changes, pool in rows
    ]


def _retrievals(settings: Settings, pool: Pool) -> list[Line]:
    second = _second(settings).model_dump()
    both = {"retrieval.method": "both", "retrieval.second": second, "retrieval.drop_near_copies": False}
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("mllm-rerank", "GPT re-rank", both | {"imagerag.rerank": True}),
        ("bm25-rerank", "BM25 re-rank", both | {"imagerag.rerank": "captions"}),
        ("siglip", "SigLIP", {"encoder": second}),
    ]
    return [
        Line(title.replace("GPT", "MLLM"), Variant(name, "imagerag", changes), pool, {"OmniGen": title})
        for name, title, changes in rows
    ]


def _pool_curve(plain: Line, captions: Variant, sizes: Sequence[int]) -> Sheet:
    measures = ("CLIP", "SigLIP", "DINO")
    columns = tuple(f"{name} {measure}" for name in ("imagenet", "aircraft") for measure in measures)
    lines = [Line(f"{size:,} images", captions, Pool("generic", size)) for size in sizes]
    title = "Size of the generic pool, which the paper only plots"
    return Sheet("imagerag/16", title, columns, (plain, *lines))


def class_test(data_set: DataSet, options: Options) -> Queries:
    """Return a prompt a class, with real images of its test split; the pool is the split for training."""
    limit = options.limit or CLASSES.get(data_set.layout.name)
    classes = data_set.classes("test", limit=limit) or data_set.classes("val", limit=limit)
    prompts = ((PROMPT.format(name), name, tuple(map(data_set.file, real[:TRUTH]))) for name, real in classes)
    names = {name for name, _ in classes}
    images = options.images or 1
    subjects = tuple(numbered(prompts, images, options.seed))
    pool = tuple(example for example in data_set.split("train") if example.class_name in names)
    how = (
        f"{len(classes)} of {len(data_set.class_names)} classes, images of each: {images}; own pool: "
        f"{len(pool):,} images of these classes to train"
    )
    return Queries(subjects, pool, how)


def extras(settings: Settings, options: Options) -> Sequence[Extra]:
    """Return the decisions of appendix E.5."""
    return (decisions(settings, options),)


EXPERIMENT = Experiment(
    paper="imagerag",
    title="ImageRAG",
    sheets=sheets,
    test=class_test,
    measures=MEASURES,
    scorers={
        "clip:ViT-L-14=laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K, 1.7 GB; license: MIT",
        "siglip:ViT-B-16-SigLIP=webli": "timm/ViT-B-16-SigLIP, 0.8 GB; license: Apache-2.0",
        "dino:FOLDER": "facebook/dino-vits16, 87 MB; license: Apache-2.0",
        "gptscore": "the profile's MLLM",
    },
    generators=GENERATORS,
    numbers=("1", "2", "3", "4", "5", "6", "7", "8", "16", "E.5"),
    extras=extras,
)
