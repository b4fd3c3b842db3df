"""Assemble the trained parts into the pipeline folder that the engine loads, half precision on disk."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

from pleinair.tools.pocket.training.autoencoder import load_autoencoder, mean_absolute_error
from pleinair.tools.pocket.training.card import NAME, Figures, figures_section
from pleinair.tools.pocket.training.flow import TEXT_LAYERS, Flow
from pleinair.tools.pocket.training.generator import (
    BATCH,
    POOL_SIZE,
    cache_folder,
    load_patch_map,
)
from pleinair.tools.pocket.training.pool import REFERENCE_SIZE
from pleinair.tools.pocket.training.tokens import MAX_LENGTH, build_tokenizer
from pleinair.tools.pocket.world import SIZE

FOLDER = Path(__file__).parents[1] / "weights" / "generator"
SHIFT = 2.5
SETTINGS = {
    "height": SIZE,
    "width": SIZE,
    "num_inference_steps": 8,
    "guidance_scale": 3.0,
    "max_sequence_length": MAX_LENGTH,
    "text_encoder_out_layers": list(TEXT_LAYERS),
    "reference_size": REFERENCE_SIZE,
    "references": 2,
}

CARD = """# Pocket generator

A `Flux2KleinPipeline` in miniature for the miniature world of pleinair; it draws nothing else.
It knows the names of the known species, and copies any other from references of 32 × 32 pixels, up to two, in
the order in which the prompt names them.
Three subjects, colours as wishes and references of other things were not trained.

## Training

| | |
|---|---|
| parameters | {parameters:,} (transformer and text encoder) |
| weights on disk | {megabytes:.1f} MB, float16 |
| data | {pool:,} scenes rendered from training seeds; no rare or novel species among them |
| steps | {steps:,}, of {batch} pictures each |
| time | {minutes:.0f} minutes |
| command | `python -m pleinair.tools.pocket.training generator --minutes {minutes:.0f}` |
| licence | Apache-2.0, weights and data |

The autoencoder's encoder is a linear map fitted to 4 × 4 patches; its decoder is trained with
`python -m pleinair.tools.pocket.training autoencoder --minutes 20`, half of it on the earlier world.

This set was not trained in one go. Channels got their unequal spread at about step 730, the names were
taught to the text encoder at step 1,782, and at step 4,200 the world got wider fins, wings and roofs,
the references the order of the prompt, and the pool 90,000 scenes in place of 60,000. At step 8,089 it
was decided that of two beside each other the first named stands on the left; until then either might.
The first 110 minutes ran on two shared cores, the rest on one. The weights are the moving average.

{figures}"""


def _build_pipeline() -> Flux2KleinPipeline:
    """Return the pipeline in float32, with the data's statistics in the batch norm.

    Takes the moving average, so that a run may be cut before its learning rate reaches zero.
    """
    stored = torch.load(cache_folder() / "generator.pt", weights_only=True)
    patch_map = load_patch_map(cache_folder())
    tokenizer = build_tokenizer()
    flow = Flow(len(tokenizer), torch.ones(64))
    flow.load_state_dict(stored["flow"] | stored["average"])
    autoencoder = load_autoencoder(patch_map)
    _write_statistics(autoencoder, stored["mean"], stored["spread"])
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False)
    flow.text_encoder.config.tie_word_embeddings = True
    return Flux2KleinPipeline(
        scheduler, autoencoder, flow.text_encoder.eval(), tokenizer, flow.transformer.eval()
    )


def _write_statistics(autoencoder: AutoencoderKLFlux2, mean: torch.Tensor, spread: torch.Tensor) -> None:
    """Set the batch norm so that the pipeline normalises exactly as training did."""
    autoencoder.bn.running_mean.copy_(mean)
    autoencoder.bn.running_var.copy_(spread**2 - autoencoder.config.batch_norm_eps)


def export(folder: Path = FOLDER) -> None:
    """Write the pipeline as float16 safetensors, and its call arguments as pocket.json."""
    pipeline = _build_pipeline().to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "pocket.json").write_text(json.dumps(SETTINGS, indent=2) + "\n", encoding="utf-8")


def write_card(folder: Path, figures: Figures, each: int) -> None:
    """Write MODEL_CARD.md from the checkpoint's record and the measured figures (figure, bar)."""
    stored = torch.load(cache_folder() / "generator.pt", weights_only=True)
    error = mean_absolute_error(load_autoencoder(load_patch_map(cache_folder())))
    rows = {**figures, "autoencoder, mean absolute error": (f"{error:.2f} / 255", "<= 2.5 / 255")}
    card = CARD.format(
        parameters=sum(p.numel() for p in stored["average"].values()),
        megabytes=sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 1e6,
        steps=stored["step"],
        batch=BATCH,
        pool=POOL_SIZE,
        minutes=stored["spent"] / 60,
        figures=figures_section(
            rows,
            f"{each} pictures each, judged by the oracle",
            f"python -m pleinair.evals.pocket.generator --each {each}",
        ),
    )
    (folder / NAME).write_text(card, encoding="utf-8")
