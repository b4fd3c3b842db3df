"""Run a timed, resumable training: seconds, steps, rate and checkpoints."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from platformdirs import user_cache_path
from torch import nn

Say = Callable[[str], None]
SAVE_SECONDS = 120
WARM_UP = 60  # steps


class Course:
    """Train `model` with AdamW for a number of minutes of processor time, earlier runs included.

    The learning rate rises over the first steps and falls to 0 with the time that is left.
    """

    def __init__(self, part: str, model: nn.Module, minutes: float, rate: float) -> None:
        """Start at step 0; `resume` continues from the part's checkpoint in the user's cache."""
        self.model, self.minutes, self.rate = model, minutes, rate
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
        self.path: Path = user_cache_path("pleinair-training", ensure_exists=True) / f"{part}.pt"
        self.step, self.seconds = 0, 0.0

    def resume(self) -> None:
        """Load the checkpoint, if there is one."""
        if not self.path.exists():
            return
        stored = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(stored["model"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.step, self.seconds = stored["step"], stored["seconds"]

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.path.with_suffix(".new"))
        self.path.with_suffix(".new").replace(self.path)

    def steps(self) -> Iterator[int]:
        """Yield step numbers until the time is over, with the rate set; save now and then and at the end."""
        self.model.train()
        began, saved = time.process_time() - self.seconds, time.monotonic()
        while self.seconds < self.minutes * 60:
            left = 1 - self.seconds / (self.minutes * 60)
            self.optimizer.param_groups[0]["lr"] = self.rate * min(1, (self.step + 1) / WARM_UP) * left
            yield self.step
            self.step += 1
            self.seconds = time.process_time() - began
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()
        self.model.eval()

    def descend(self, loss: torch.Tensor) -> None:
        """Take one optimizer step down the loss."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
