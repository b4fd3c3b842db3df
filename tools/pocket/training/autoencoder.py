"""Train the autoencoder's decoder; its encoder is the linear patch map and stays as it is."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor

from pleinair.tools.pocket.training.generator import cache_folder, load_patch_map
from pleinair.tools.pocket.training.linear import build_autoencoder
from pleinair.tools.pocket.training.muon import Muon
from pleinair.tools.pocket.training.patches import PatchMap, sample_pictures
from pleinair.tools.pocket.world import SPECIES, held_out_rng, random_scene, render

PICTURES, BATCH = 6000, 4
MUON_RATE, ADAM_RATE = 0.02, 2e-3
SAVE_SECONDS = 60
Say = Callable[[str], None]


def to_tensor(pictures: Any) -> Tensor:
    """Turn (n, 64, 64, 3) bytes into (n, 3, 64, 64) in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def _checkpoint_path() -> Path:
    """Return where the autoencoder's checkpoint lies."""
    return cache_folder() / "autoencoder.pt"


def load_autoencoder(patch_map: PatchMap) -> AutoencoderKLFlux2:
    """Return the autoencoder with the averaged decoder of the checkpoint."""
    model = build_autoencoder(patch_map)
    model.decoder.load_state_dict(torch.load(_checkpoint_path(), weights_only=True)["average"])
    return model.eval()


def _held_out_pictures(count: int) -> Any:
    """Render `count` held-out pictures of all species, one or two in each: (count, 64, 64, 3) bytes."""
    scenes = []
    for index in range(count):
        rng = held_out_rng(index)
        scenes.append(random_scene(rng, rng.sample(SPECIES, 1 + index % 2)))
    return np.stack([np.asarray(render(scene)) for scene in scenes])


@torch.no_grad()
def mean_absolute_error(model: AutoencoderKLFlux2, count: int = 64) -> float:
    """Return the reconstruction error of `count` held-out pictures in 1/255."""
    pictures = to_tensor(_held_out_pictures(count))
    decoded = model.decode(model.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
    return float((decoded - pictures).abs().mean() * 127.5)


class Trainer:
    """Hold the decoder's run."""

    def __init__(self, minutes: float, resume: bool, say: Say) -> None:
        """Render the pictures; continue from the checkpoint when `resume` and it exists."""
        torch.manual_seed(0)
        self.minutes, self.say = minutes, say
        self.patch_map = load_patch_map(cache_folder())
        self.pictures = sample_pictures(PICTURES, first_index=1_000_000)
        self.model = build_autoencoder(self.patch_map)
        self.decoder = self.model.decoder.to(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.decoder.named_parameters()}
        self.step, self.spent = 0, 0.0
        self.optimizers = self._optimizers()
        if resume and _checkpoint_path().exists():
            self._restore(torch.load(_checkpoint_path(), weights_only=True))

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        kernels = [p for n, p in self.decoder.named_parameters() if p.ndim == 4 and "conv_out" not in n]
        chosen = {id(p) for p in kernels}
        rest = [p for p in self.decoder.parameters() if id(p) not in chosen]
        return [Muon(kernels, lr=MUON_RATE), torch.optim.AdamW(rest, lr=ADAM_RATE, weight_decay=0.0)]

    def _restore(self, stored: dict[str, Any]) -> None:
        self.decoder.load_state_dict(stored["decoder"])
        self.average, self.step, self.spent = stored["average"], stored["step"], stored["spent"]
        for optimizer, state in zip(self.optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "decoder": self.decoder.state_dict(),
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "spent": self.spent,
        }
        draft = _checkpoint_path().with_suffix(".new")
        torch.save(state, draft)
        draft.replace(_checkpoint_path())

    def train_step(self, progress: float) -> float:
        """Run one update on the absolute error; return it in 1/255."""
        rows = torch.randint(len(self.pictures), (BATCH,)).numpy()
        latents = torch.from_numpy(self.patch_map.encode(self.pictures[rows]))
        latents = latents.contiguous(memory_format=torch.channels_last)
        loss = (self.decoder(latents) - to_tensor(self.pictures[rows])).abs().mean()
        loss.backward()
        factor = min(1.0, (self.step + 1) / 30) * min(1.0, max(0.02, (1 - progress) / 0.5))
        for optimizer, base in zip(self.optimizers, (MUON_RATE, ADAM_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = base * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average()
        error: float = loss.item() * 127.5
        return error

    @torch.no_grad()
    def _average(self) -> None:
        self.step += 1
        decay = min(0.98, self.step / (10 + self.step))
        for name, parameter in self.decoder.named_parameters():
            self.average[name].lerp_(parameter, 1 - decay)

    def run(self) -> None:
        """Train until the minutes are over, counting earlier runs; say the held-out error at the end."""
        began, saved = time.monotonic() - self.spent, time.monotonic()
        while self.spent < self.minutes * 60:
            error = self.train_step(self.spent / (self.minutes * 60))
            self.spent = time.monotonic() - began
            if self.step % 50 == 0:
                self.say(f"step {self.step} seconds {self.spent:.0f} error {error:.2f}/255")
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()
        self.say(f"held-out error {mean_absolute_error(load_autoencoder(self.patch_map)):.2f}/255, bar 2.5")


def train(minutes: float, resume: bool, say: Say) -> None:
    """Train the decoder for `minutes` in all, keeping its checkpoint in the user's cache."""
    Trainer(minutes, resume, say).run()
