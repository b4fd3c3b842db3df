"""Training of the pocket generator: rectified flow on encoded scenes, and its export as a pipeline folder.

The result is a `Flux2KleinPipeline` in miniature. It knows the names of the known species, and copies any
other from references of 32 × 32 pixels, up to two, in the order in which the prompt names them. Three
subjects, colours in words and references of other things are not in the data.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pleinair.tools.pocket.invented.prompts import Request, write_prompt
from pleinair.tools.pocket.invented.world import NOUNS, SIZE
from pleinair.tools.pocket.training.autoencoder import load_autoencoder, load_patch_map
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.course import Course, Muon, Run
from pleinair.tools.pocket.training.flow import LAYOUT, NOISE, pretrain_text
from pleinair.tools.pocket.training.networks import TEXT_LAYERS, Batch, Flow, draw_sigma
from pleinair.tools.pocket.training.pool import REFERENCE_SIZE, Pool, build_tokenizer, load_pool
from pleinair.tools.pocket.training.streams import random_species

POOL_SIZE, PROMPTS = 90_000, 30_000
POOL_SHARES = {0: 0.20, 1: 0.38, 2: 0.42}  # of items with 0, 1, 2 references
BATCH_SHARES = {0: 0.25, 1: 0.35, 2: 0.40}  # of batches with 0, 1, 2 references
BATCH = 48
MUON_RATE, ADAM_RATE = 0.02, 2e-3
EMA = 0.9985
TEXT_DROP = 0.08
SHIFT = 2.5
SETTINGS = {
    "height": SIZE,
    "width": SIZE,
    "num_inference_steps": 8,
    "guidance_scale": 3.0,
    "max_sequence_length": LAYOUT.text_tokens,
    "text_encoder_out_layers": list(TEXT_LAYERS),
    "reference_size": REFERENCE_SIZE,
    "references": LAYOUT.references,
}


def invent(rng: random.Random, kind: str) -> str:
    """Return an invented name of `kind` that is not one of the world's."""
    return f"{random_species(rng).name.split()[0]} {rng.choice(NOUNS[kind])}"


class Data:
    """Source of batches from the pools; prompts and the names of random species are fresh each time.

    `mean` and `spread` (64,) are those of the packed channels. The spread is divided by that of the patch
    map, so that large strokes are wide and texture narrow: with unit variance everywhere, texture is learnt
    as eagerly as colour.
    """

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        """Build or load the pools."""
        size = run.size(POOL_SIZE, 40)
        self.pools: dict[int, Pool] = {
            references: load_pool(run, references, int(size * share))
            for references, share in POOL_SHARES.items()
        }
        self._tokenizer, self._rng, self._size = tokenizer, random.Random(seed), run.size(BATCH, 4)
        tokens = torch.from_numpy(self.pools[0].targets[:8000].astype(np.float32)).reshape(-1, 64)
        scale = torch.from_numpy(load_patch_map(run).scale)
        self.mean = tokens.mean(dim=0)
        self.spread = tokens.std(dim=0) / (scale / scale[0]).sqrt().repeat_interleave(4)

    def _prompt(self, names: tuple[str, ...], relation: str | None, place: str | None) -> str:
        """Write a prompt; entries of `names` that are kinds get invented names. Some prompts are empty."""
        if self._rng.random() < TEXT_DROP:
            return ""
        subjects = tuple(invent(self._rng, name) if name in NOUNS else name for name in names)
        return write_prompt(self._rng, Request(subjects, relation, place))

    def batch(self) -> Batch:
        """Return one batch of a single reference count."""
        pool = self.pools[self._rng.choices(list(BATCH_SHARES), list(BATCH_SHARES.values()))[0]]
        rows = [self._rng.randrange(len(pool.requests)) for _ in range(self._size)]
        ids, mask = LAYOUT.tokenize(self._tokenizer, [self._prompt(*pool.requests[row]) for row in rows])
        covered = torch.from_numpy(pool.covered[rows]).float()
        return Batch(
            ids, mask, self._normalise(pool.targets[rows]), self._normalise(pool.references[rows]), covered
        )

    def _normalise(self, tokens: Any) -> Tensor:
        return (torch.from_numpy(tokens.astype(np.float32)) - self.mean) / self.spread


def optimizers(flow: Flow) -> list[torch.optim.Optimizer]:
    """Return Muon for the blocks' matrices and AdamW for all other parameters."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in flow.named_parameters():
        in_block = "transformer_blocks" in name and parameter.ndim == 2
        (matrices if in_block else rest).append(parameter)
    return [
        Muon(matrices, lr=MUON_RATE),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(progress: float, step: int) -> float:
    """Return the factor of the rates: short warm-up, constant, linear to zero over the last quarter."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1 - progress) / 0.25))


def train(run: Run) -> None:
    """Train the generator and export it with the run's autoencoder, which must be trained before."""
    autoencoder = load_autoencoder(run)
    torch.manual_seed(0)
    tokenizer = build_tokenizer(run.size(PROMPTS, 300))
    flow = Flow(len(tokenizer), run.size(LAYOUT, replace(LAYOUT, single_blocks=1, heads=2)))
    if not (run.resume and run.load("generator")):
        pretrain_text(flow, tokenizer, run)
    course = Course(run, "generator", flow, optimizers(flow), schedule, decay=EMA)
    data = Data(run, tokenizer, seed=course.step)
    noise = torch.Generator().manual_seed(course.step)
    loss_of = flow if run.tiny else torch.compile(flow)
    for _ in course.steps():
        batch = data.batch()
        start = torch.randn(batch.targets.shape, generator=noise)
        course.descend(loss_of(batch, start, draw_sigma(len(batch.ids), noise, NOISE)))
    autoencoder.bn.running_mean.copy_(data.mean)
    autoencoder.bn.running_var.copy_(data.spread**2 - autoencoder.config.batch_norm_eps)
    folder = run.out / "generator"
    write_pipeline(folder, flow, autoencoder, tokenizer, SETTINGS)
    write_card(folder, "Pocket generator", __doc__ or "", course)


def write_pipeline(
    folder: Path,
    flow: Flow,
    autoencoder: Any,
    tokenizer: PreTrainedTokenizerFast,
    settings: Mapping[str, Any],
) -> None:
    """Write a pipeline as float16 safetensors, and its call arguments as pocket.json."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False)
    flow.text_encoder.config.tie_word_embeddings = True
    pipeline = Flux2KleinPipeline(scheduler, autoencoder, flow.text_encoder, tokenizer, flow.transformer)
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    (folder / "pocket.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
