"""Training of the catalogue world's generator: rectified flow on encoded scenes, and its export.

The result is a `Flux2KleinPipeline` in miniature: 96 × 96 pixels, up to three references of 48 × 48, in the
order in which the prompt names their subjects.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.training.autoencoder import load_decoder
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.catalogue.autoencoder import NAME
from pleinair.tools.pocket.training.catalogue.flow import LAYOUT, NOISE, load_tokenizer, pretrain_text
from pleinair.tools.pocket.training.catalogue.pool import (
    REFERENCE_SIZE,
    load_patch_map,
    load_shard,
    render_shards,
)
from pleinair.tools.pocket.training.course import Course, Run
from pleinair.tools.pocket.training.generator import EMA, optimizers, schedule, write_pipeline
from pleinair.tools.pocket.training.networks import TEXT_LAYERS, Batch, Flow, draw_sigma

BATCH_SHARES = (0.26, 0.34, 0.28, 0.12)  # of batches with 0, 1, 2, 3 references
BATCH = 48
TEXT_DROP = 0.08
RESIDENT = 60  # shards of one reference count in memory
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


class Data:
    """Source of batches from the rendered shards, of which some at a time are in memory."""

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        """Load shards; `mean` and `spread` (64,) are those of the packed channels."""
        self._tokenizer, self._size = tokenizer, run.size(BATCH, 6)
        self._rng, self._batches = random.Random(seed), 0
        self._paths = [sorted((run.work / "shards").glob(f"????-{count}.npz")) for count in range(4)]
        self._loaded = [[load_shard(path) for path in paths[:RESIDENT]] for paths in self._paths]
        first = np.concatenate([shard.targets for shard in self._loaded[0][:8]])
        tokens = torch.from_numpy(first.astype(np.float32)).reshape(-1, 64)
        scale = torch.from_numpy(load_patch_map(run).scale)
        self.mean = tokens.mean(dim=0)
        self.spread = tokens.std(dim=0) / (scale / scale[0]).sqrt().repeat_interleave(4)

    def _exchange(self) -> None:
        """Exchange a tenth of the shards in memory where there are more on disk."""
        for paths, loaded in zip(self._paths, self._loaded, strict=True):
            if len(paths) > RESIDENT:
                for place in self._rng.sample(range(RESIDENT), RESIDENT // 10):
                    loaded[place] = load_shard(self._rng.choice(paths))

    def batch(self) -> Batch:
        """Return one batch of a single reference count."""
        self._batches += 1
        if self._batches % 400 == 0:
            self._exchange()
        count = self._rng.choices(range(4), BATCH_SHARES)[0]
        shards = self._rng.choices(self._loaded[count], k=6)
        rows = [[self._rng.randrange(len(s.prompts)) for _ in range(self._size // 6)] for s in shards]
        texts = [
            "" if self._rng.random() < TEXT_DROP else self._rng.choice(shard.prompts[row])
            for shard, chosen in zip(shards, rows, strict=True)
            for row in chosen
        ]
        ids, mask = LAYOUT.tokenize(self._tokenizer, texts)
        parts = list(zip(shards, rows, strict=True))
        targets = np.concatenate([shard.targets[chosen] for shard, chosen in parts])
        references = np.concatenate([shard.references[chosen] for shard, chosen in parts])
        covered = np.concatenate([shard.covered[chosen] for shard, chosen in parts])
        return Batch(
            ids,
            mask,
            self._normalise(targets),
            self._normalise(references),
            torch.from_numpy(covered).float(),
        )

    def _normalise(self, tokens: Any) -> Tensor:
        normal: Tensor = (torch.from_numpy(tokens.astype(np.float32)) - self.mean) / self.spread
        return normal


def train(run: Run) -> None:
    """Train the generator and export it with the run's autoencoder, which must be trained before.

    A run that resumes without a checkpoint goes on from the generator in `run.out`, if there is one.
    """
    render_shards(run)
    autoencoder = load_decoder(run, NAME, load_patch_map(run))
    torch.manual_seed(0)
    tokenizer = load_tokenizer(run)
    flow = Flow(len(tokenizer), run.size(LAYOUT, replace(LAYOUT, single_blocks=1, heads=2)))
    if not (run.resume and (run.load("generator") or _load_exported(flow, run))):
        pretrain_text(flow, tokenizer, run)
    course = Course(run, "generator", flow, optimizers(flow), schedule, decay=EMA)
    data = Data(run, tokenizer, seed=course.step)
    noise = torch.Generator().manual_seed(course.step)
    loss_of = flow if run.tiny else torch.compile(flow, dynamic=False)
    for _ in course.steps():
        batch = data.batch()
        start = torch.randn(batch.targets.shape, generator=noise)
        with torch.autocast("cpu", torch.bfloat16, enabled=not run.tiny):
            loss = loss_of(batch, start, draw_sigma(len(batch.ids), noise, NOISE))
        course.descend(loss)
    autoencoder.bn.running_mean.copy_(data.mean)
    autoencoder.bn.running_var.copy_(data.spread**2 - autoencoder.config.batch_norm_eps)
    folder = run.out / "generator"
    write_pipeline(folder, flow, autoencoder, tokenizer, SETTINGS)
    write_card(folder, "Pocket generator", __doc__ or "", course, world="catalogue")


def _load_exported(flow: Flow, run: Run) -> bool:
    """Load the weights of the generator in `run.out` into a flow; return whether there is one."""
    folder = run.out / "generator"
    if not (folder / "model_index.json").exists():
        return False
    text_encoder = Qwen3ForCausalLM.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    transformer = Flux2Transformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    flow.text_encoder.load_state_dict(text_encoder.state_dict())
    flow.transformer.load_state_dict(transformer.state_dict())
    run.say(f"generator: goes on from the weights in {folder}")
    return True
