"""Training of the catalogue world's generator: rectified flow on encoded scenes, and its export.

The result is a `Flux2KleinPipeline` in miniature: 96 × 96 pixels, up to three references of 48 × 48, in the
order in which the prompt names their subjects.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.training.catalogue.flow import LAYOUT, NOISE, build_tokenizer, pretrain_text
from pleinair.tools.pocket.training.catalogue.pool import (
    REFERENCE_SIZE,
    SHARD,
    Shard,
    load_patch_map,
    load_shard,
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
    """Source of batches from the shards that are rendered so far."""

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        """Load the shards' names; `mean` and `spread` (64,) are those of the packed channels."""
        self._folder, self._tokenizer = run.work / "shards", tokenizer
        self._rng = random.Random(seed)
        self._loaded: dict[int, list[Shard]] = {count: [] for count in range(4)}
        self._names: dict[int, list[Path]] = {}
        self._refresh()
        first = np.concatenate([shard.targets for shard in self._loaded[0][:8]])
        tokens = torch.from_numpy(first.astype(np.float32)).reshape(-1, 64)
        scale = torch.from_numpy(load_patch_map(run.work).scale)
        path = run.work / "statistics.pt"
        if not path.exists():
            spread = tokens.std(dim=0) / (scale / scale[0]).sqrt().repeat_interleave(4)
            torch.save({"mean": tokens.mean(dim=0), "spread": spread}, path)
        stored = torch.load(path, weights_only=True)
        self.mean, self.spread = stored["mean"], stored["spread"]
        self._batches = 0

    def _refresh(self) -> None:
        """Load shards rendered since, and exchange some in memory."""
        for count in range(4):
            names = sorted(self._folder.glob(f"*-{count}.npz"))
            names = [name for name in names if ".new" not in name.name]
            loaded = self._loaded[count]
            wanted = names if len(names) <= RESIDENT else self._rng.sample(names, 6)
            if len(names) <= RESIDENT:
                self._loaded[count] = loaded + [load_shard(name) for name in wanted[len(loaded) :]]
            else:
                self._loaded[count] = (loaded + [load_shard(name) for name in wanted])[-RESIDENT:]

    def batch(self) -> Batch:
        """Return one batch of a single reference count."""
        self._batches += 1
        if self._batches % 400 == 0:
            self._refresh()
        count = self._rng.choices(range(4), BATCH_SHARES)[0]
        shards = self._rng.choices(self._loaded[count], k=6)
        rows = [[self._rng.randrange(SHARD) for _ in range(BATCH // 6)] for _ in shards]
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


def _load_tokenizer(run: Run) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a run, trained the first time."""
    folder = run.work / "tokenizer"
    if not folder.exists():
        build_tokenizer().save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def train(run: Run) -> None:
    """Train the generator for the minutes of the run, earlier ones included."""
    torch.manual_seed(0)
    tokenizer = _load_tokenizer(run)
    flow = Flow(len(tokenizer), LAYOUT)
    if not run.load("generator"):
        pretrain_text(flow, tokenizer, run)
    run.say(f"{sum(p.numel() for p in flow.parameters()) / 1e6:.2f} M parameters")
    course = Course(run, "generator", flow, optimizers(flow), schedule, decay=EMA)
    data = Data(run, tokenizer, seed=course.step)
    noise = torch.Generator().manual_seed(course.step)
    loss_of = torch.compile(flow, dynamic=False)
    for _ in course.steps():
        batch = data.batch()
        start = torch.randn(batch.targets.shape, generator=noise)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(batch, start, draw_sigma(len(batch.ids), noise, NOISE))
        course.descend(loss)


def export(run: Run, autoencoder: Any) -> None:
    """Write the averaged weights as a pipeline of float16 safetensors."""
    tokenizer = _load_tokenizer(run)
    flow = Flow(len(tokenizer), LAYOUT)
    stored = run.load("generator")
    assert stored is not None
    flow.load_state_dict(stored["model"])
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            parameter.copy_(stored["average"][name])
    statistics = torch.load(run.work / "statistics.pt", weights_only=True)
    autoencoder.bn.running_mean.copy_(statistics["mean"])
    autoencoder.bn.running_var.copy_(statistics["spread"] ** 2 - autoencoder.config.batch_norm_eps)
    write_pipeline(run.out / "generator", flow, autoencoder, tokenizer, SETTINGS)


if __name__ == "__main__":
    train(Run(Path(sys.argv[1]), Path(sys.argv[1]), float(sys.argv[2]), resume=True, tiny=False))
