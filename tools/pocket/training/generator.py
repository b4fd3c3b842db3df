"""Train the generator: rectified flow on cached latents, Muon and AdamW, EMA, resumable."""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path

from pleinair.tools.pocket.names import NOUNS
from pleinair.tools.pocket.prompts import Request, write_prompt
from pleinair.tools.pocket.training.flow import Batch, Flow, draw_sigma
from pleinair.tools.pocket.training.muon import Muon
from pleinair.tools.pocket.training.patches import PatchMap, fit_patch_map, sample_pictures
from pleinair.tools.pocket.training.pool import SHARES, Pool, cached_pool
from pleinair.tools.pocket.training.tokens import MAX_LENGTH, build_tokenizer
from pleinair.tools.pocket.training.words import teach
from pleinair.tools.pocket.world import Species, random_species

POOL_SIZE = 90_000
BATCH = 48
MUON_RATE, ADAM_RATE = 0.02, 2e-3
EMA = 0.9985
DRAWN = {0: 0.25, 1: 0.35, 2: 0.40}  # shares of 0, 1, 2 references among batches
TEXT_DROP = 0.08
WORD_STEPS = 200
SAVE_SECONDS = 180
Say = Callable[[str], None]


def cache_folder() -> Path:
    """Return (and make) the folder of pools and checkpoints in the user's cache."""
    return user_cache_path("pleinair-training", ensure_exists=True)


def load_patch_map(folder: Path) -> PatchMap:
    """Load the patch map, fitting it first where it is missing."""
    path = folder / "patch_map.npz"
    if not path.exists():
        fitted = fit_patch_map(sample_pictures(3000, first_index=0))
        np.savez(path, basis=fitted.basis, mean=fitted.mean, scale=fitted.scale)
    with np.load(path) as arrays:
        return PatchMap(**arrays)


def _channel_scale(patch_map: PatchMap) -> torch.Tensor:
    """Return the spread (64,) of each packed channel in training: large strokes wide, texture narrow.

    Without it every component has unit variance, and texture is learnt as eagerly as colour.
    """
    scale = torch.from_numpy(patch_map.scale)
    return (scale / scale[0]).sqrt().repeat_interleave(4)


def invent(rng: random.Random, kind: str) -> str:
    """Return an invented name of `kind` that is no name of the world's."""
    first: Species = random_species(rng)
    return f"{first.name.split()[0]} {rng.choice(NOUNS[kind])}"


class Data:
    """Draw batches from the pools; prompts and the names of random species are fresh each time."""

    def __init__(self, folder: Path, seed: int, size: int = POOL_SIZE) -> None:
        """Build or load the pools and the tokenizer."""
        patch_map = load_patch_map(folder)
        self.pools = {r: cached_pool(folder, patch_map, r, int(size * share)) for r, share in SHARES.items()}
        self.tokenizer = build_tokenizer()
        self.rng = random.Random(seed)
        mean, spread = _latent_statistics(self.pools)
        self.mean, self.spread = mean, spread / _channel_scale(patch_map)

    def prompt(self, names: tuple[str, ...], relation: str | None, place: str | None) -> str:
        """Write a prompt; entries of `names` that are kinds get invented names. Some prompts are empty."""
        if self.rng.random() < TEXT_DROP:
            return ""
        subjects = tuple(invent(self.rng, name) if name in NOUNS else name for name in names)
        return write_prompt(self.rng, Request(subjects, relation, place))

    def batch(self, size: int = BATCH) -> Batch:
        """Return one batch of a single reference count."""
        count = self.rng.choices(list(DRAWN), list(DRAWN.values()))[0]
        pool = self.pools[count]
        rows = [self.rng.randrange(len(pool.wishes)) for _ in range(size)]
        text = self.tokenizer(
            [self.prompt(*pool.wishes[i]) for i in rows],
            padding="max_length",
            truncation=True,
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        targets, references = (self._normal(x[rows]) for x in (pool.targets, pool.references))
        covered = torch.from_numpy(pool.covered[rows]).float()
        return Batch(text["input_ids"], text["attention_mask"], targets, references, covered)

    def _normal(self, tokens: Any) -> torch.Tensor:
        return (torch.from_numpy(tokens.astype(np.float32)) - self.mean) / self.spread


def _latent_statistics(pools: dict[int, Pool]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the 64 packed channels: before `_channel_scale`."""
    tokens = torch.from_numpy(pools[0].targets[:8000].astype(np.float32)).reshape(-1, 64)
    return tokens.mean(dim=0), tokens.std(dim=0)


def _make_optimizers(flow: Flow) -> list[torch.optim.Optimizer]:
    """Give the blocks' matrices to Muon and everything else to AdamW."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in flow.named_parameters():
        in_block = "transformer_blocks" in name and parameter.ndim == 2
        (matrices if in_block else rest).append(parameter)
    return [
        Muon(matrices, lr=MUON_RATE),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _rate(progress: float, step: int) -> float:
    """Return the learning-rate factor: short warm-up, constant, linear to zero over the last quarter."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1 - progress) / 0.25))


class Trainer:
    """Hold the run's state; `run` trains until the minutes are over."""

    def __init__(self, folder: Path, minutes: float, resume: bool, say: Say) -> None:
        """Build everything; continue from the checkpoint in `folder` when `resume` and it exists."""
        self.path, self.minutes, self.say = folder / "generator.pt", minutes, say
        self.step, self.spent = 0, 0.0
        torch.manual_seed(0)
        stored = torch.load(self.path, weights_only=True) if resume and self.path.exists() else None
        self.data = Data(folder, seed=stored["step"] if stored else 0)
        self.flow = Flow(len(self.data.tokenizer), torch.ones(64))
        self.optimizers = _make_optimizers(self.flow)
        self.noise = torch.Generator().manual_seed(stored["step"] if stored else 0)
        if stored:
            self._restore(stored)
        else:
            teach(self.flow, self.data.tokenizer, WORD_STEPS, say)
            self.average = {k: v.detach().clone() for k, v in self.flow.named_parameters()}

    def _restore(self, stored: dict[str, Any]) -> None:
        self.flow.load_state_dict(stored["flow"])
        self.average, self.step, self.spent = stored["average"], stored["step"], stored["spent"]
        for optimizer, state in zip(self.optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "flow": self.flow.state_dict(),
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "spent": self.spent,
            "mean": self.data.mean,
            "spread": self.data.spread,
        }
        torch.save(state, self.path.with_suffix(".new"))
        self.path.with_suffix(".new").replace(self.path)

    def train_step(self, loss_of: Callable[..., torch.Tensor], progress: float) -> float:
        """Run one update and move the average; return the loss."""
        batch = self.data.batch()
        noise = torch.randn(batch.targets.shape, generator=self.noise)
        loss = loss_of(batch, noise, draw_sigma(len(batch.ids), self.noise))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.optimizers[1].param_groups[0]["params"], 1.0)
        factor = _rate(progress, self.step)
        for optimizer, base in zip(self.optimizers, (MUON_RATE, ADAM_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = base * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        for name, parameter in self.flow.named_parameters():
            self.average[name].lerp_(parameter, 1 - decay)

    def run(self) -> None:
        """Train until `minutes` (earlier runs count) are spent; save every three minutes and at the end."""
        loss_of = torch.compile(self.flow)
        began, saved, losses = time.monotonic() - self.spent, time.monotonic(), []
        while self.spent < self.minutes * 60:
            losses.append(self.train_step(loss_of, self.spent / (self.minutes * 60)))
            self.spent = time.monotonic() - began
            if len(losses) == 50:
                self.say(f"step {self.step} seconds {self.spent:.0f} loss {math.fsum(losses) / 50:.4f}")
                losses.clear()
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()


def train(minutes: float, resume: bool, say: Say) -> None:
    """Train the generator for `minutes` in all, keeping its checkpoint in the user's cache."""
    Trainer(cache_folder(), minutes, resume, say).run()
