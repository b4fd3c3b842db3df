"""Training of the pocket generator: rectified flow on encoded scenes, and its export as a pipeline folder.

The result is a `Flux2KleinPipeline` in miniature: 96 × 96 pixels, up to three references of 48 × 48, in the
order in which the prompt names their subjects.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.training.autoencoder import load_autoencoder, load_patch_map
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.course import Course, Muon, Run
from pleinair.tools.pocket.training.flow import LAYOUT, NOISE, load_tokenizer, pretrain_text
from pleinair.tools.pocket.training.networks import TEXT_LAYERS, Batch, Flow, draw_sigma
from pleinair.tools.pocket.training.pool import REFERENCE_SIZE, load_shard, render_shards

BATCH_SHARES = (0.25, 0.4, 0.22, 0.13)  # of batches with 0, 1, 2, 3 references
BATCH = 48
MUON_RATE, ADAM_RATE = 0.02, 2e-3
EMA = 0.9985
SHIFT = 2.5  # of the scheduler's noise levels
TEXT_DROP = 0.08
RESIDENT = 60  # shards of one reference count in memory
SETTINGS = {
    "height": SIZE,
    "width": SIZE,
    "num_inference_steps": 8,
    "guidance_scale": 2.0,
    "max_sequence_length": LAYOUT.text_tokens,
    "text_encoder_out_layers": list(TEXT_LAYERS),
    "reference_size": REFERENCE_SIZE,
    "references": LAYOUT.references,
}


class Data:
    """Source of batches from the rendered shards, of which some at a time are in memory.

    `mean` and `spread` (64,) are those of the packed channels. The spread is divided by that of the patch
    map, so that large strokes are wide and texture narrow: with unit variance everywhere, texture is learnt
    as eagerly as colour.
    """

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        """Load shards."""
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


def _optimizers(flow: Flow) -> list[torch.optim.Optimizer]:
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


def _schedule(progress: float, step: int) -> float:
    """Return the factor of the rates: short warm-up, constant, linear to zero over the last quarter."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1 - progress) / 0.25))


def train(run: Run) -> None:
    """Train the generator and export it with the run's autoencoder, which must be trained before.

    A run that resumes without a checkpoint goes on from the generator in `run.out`, if there is one.
    """
    render_shards(run)
    autoencoder = load_autoencoder(run)
    torch.manual_seed(0)
    tokenizer = load_tokenizer(run)
    flow = Flow(len(tokenizer), run.size(LAYOUT, replace(LAYOUT, single_blocks=1, heads=2)))
    if not (run.resume and (run.load("generator") or _load_exported(flow, run))):
        pretrain_text(flow, tokenizer, run)
    course = Course(run, "generator", flow, _optimizers(flow), _schedule, decay=EMA)
    data = Data(run, tokenizer, seed=course.step)
    noise = torch.Generator().manual_seed(course.step)
    # plain attention in bfloat16: the fused one's backward takes 1.8 times as long on a CPU without AMX
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    loss_of = flow if run.tiny else torch.compile(flow, dynamic=False)
    for _ in course.steps():
        batch = data.batch()
        start = torch.randn(batch.targets.shape, generator=noise)
        with torch.autocast("cpu", torch.bfloat16, enabled=not run.tiny), sdpa_kernel(SDPBackend.MATH):
            loss = loss_of(batch, start, draw_sigma(len(batch.ids), noise, NOISE))
        course.descend(loss)
    autoencoder.bn.running_mean.copy_(data.mean)
    autoencoder.bn.running_var.copy_(data.spread**2 - autoencoder.config.batch_norm_eps)
    folder = run.out / "generator"
    _write_pipeline(folder, flow, autoencoder, tokenizer)
    write_card(folder, "Pocket generator", __doc__ or "", course)


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


def _write_pipeline(folder: Path, flow: Flow, autoencoder: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the pipeline as float16 safetensors, and its call arguments as pocket.json."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False)
    flow.text_encoder.config.tie_word_embeddings = True
    pipeline = Flux2KleinPipeline(scheduler, autoencoder, flow.text_encoder, tokenizer, flow.transformer)
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    (folder / "pocket.json").write_text(json.dumps(SETTINGS, indent=2) + "\n", encoding="utf-8")
