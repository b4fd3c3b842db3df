"""Timed, resumable training: learning rates, optimizer steps, weight averages, checkpoints; and Muon."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Schedule = Callable[[float, int], float]  # progress in 0..1 and step -> factor of the learning rates
T = TypeVar("T")
TINY_STEPS = 2
SAVE_SECONDS = 120
REPORT_STEPS = 50


@dataclass(frozen=True, slots=True)
class Run:
    """Options of one training command.

    `minutes` are those of one part, wall time, earlier runs included; `tiny` takes the small sizes and
    `TINY_STEPS` steps in their place.
    """

    out: Path  # the folder of the finished models
    work: Path  # the folder of checkpoints and rendered data
    minutes: float
    resume: bool
    tiny: bool

    def say(self, line: str) -> None:
        """Print a line with the time of day."""
        print(time.strftime("%H:%M:%S"), line, flush=True)

    def size(self, full: T, tiny: T) -> T:
        """Return the size that the configuration takes."""
        return tiny if self.tiny else full

    def load(self, name: str) -> dict[str, Any] | None:
        """Load a part's checkpoint, None if there is none."""
        path = self.work / f"{name}.pt"
        return torch.load(path, weights_only=True) if path.exists() else None

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a part's checkpoint atomically."""
        self.work.mkdir(parents=True, exist_ok=True)
        draft = self.work / f"{name}.new"
        torch.save(state, draft)
        draft.replace(self.work / f"{name}.pt")


class Course:
    """Training of one model for the minutes of a run, with a moving average of its weights."""

    def __init__(
        self,
        run: Run,
        name: str,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedule: Schedule,
        *,
        clip: float = 1.0,
        decay: float = 0.0,
    ) -> None:
        """Start at step 0, or at the checkpoint `name` if the run resumes and there is one.

        Args:
            run: where checkpoints are kept, and for how long to train.
            name: of the checkpoint.
            model: the module to train.
            optimizers: of its parameters; the last one's are clipped.
            schedule: the factor of each optimizer's own learning rate.
            clip: the largest gradient norm.
            decay: of the moving average, 0..1; at 0 it is the weights themselves.
        """
        self.run, self.name, self.model, self.optimizers = run, name, model, optimizers
        self.schedule, self.clip, self.decay = schedule, clip, decay
        self.step, self.seconds, self._losses = 0, 0.0, list[float]()
        self.average = {key: value.detach().clone() for key, value in model.named_parameters()}
        if run.resume and (stored := run.load(name)):
            model.load_state_dict(stored["model"])
            self.average, self.step, self.seconds = stored["average"], stored["step"], stored["seconds"]
            for optimizer, state in zip(optimizers, stored["optimizers"], strict=True):
                optimizer.load_state_dict(state)

    @property
    def progress(self) -> float:
        """Return the share of the training that is done, from 0; at 1 it ends."""
        return self.step / TINY_STEPS if self.run.tiny else self.seconds / (60 * self.run.minutes)

    def steps(self) -> Iterator[int]:
        """Yield step numbers until the training is done, then load the average into the model.

        Checkpoints are saved now and then and at the end.
        """
        self.model.train()
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        while self.progress < 1:
            yield self.step
            self.step, self.seconds = self.step + 1, time.monotonic() - began
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        self._save()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.average[name])
        self.model.eval()

    def descend(self, loss: Tensor) -> None:
        """Step down the gradient of the loss, and update the average."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.optimizers[-1].param_groups[0]["params"], self.clip)
        factor = self.schedule(self.progress, self.step)
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1 - decay)
        self._report(loss.item())

    def _report(self, loss: float) -> None:
        self._losses.append(loss)
        if len(self._losses) == REPORT_STEPS:
            mean = sum(self._losses) / REPORT_STEPS
            self.run.say(f"{self.name}: step {self.step + 1}, {self.progress:.0%}, loss {mean:.4f}")
            self._losses.clear()

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        self.run.save(self.name, state)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Push a matrix towards the nearest orthogonal one with the quintic Newton-Schulz iteration of Muon.

    The iteration runs on the Gram matrix of the shorter side, where all factors commute: half the work.
    """
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    gram, factor = x @ x.T, torch.eye(x.shape[0])
    for _ in range(steps):
        square = gram @ gram
        change = 3.4445 * torch.eye(x.shape[0]) - 4.7750 * gram + 2.0315 * square
        gram, factor = change @ gram @ change, change @ factor
    result: Tensor = factor @ x
    return result if matrix.shape[0] <= matrix.shape[1] else result.T


class Muon(torch.optim.Optimizer):
    """Optimizer of matrices by orthogonalised Nesterov momentum (Jordan et al. 2024), in float32.

    torch's own runs its iteration in bfloat16, which many CPUs emulate slowly.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95) -> None:
        """Register matrices, or kernels, which are flattened to (out, in · height · width)."""
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients in place."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["momentum"])

    def _update(self, parameter: Tensor, lr: float, momentum: float) -> None:
        assert parameter.grad is not None
        buffer: Tensor = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(parameter.grad, 1 - momentum)
        update = orthogonalise(torch.lerp(parameter.grad, buffer, momentum).flatten(1)).view_as(parameter)
        parameter.mul_(1 - lr * 0.01)
        parameter.add_(update, alpha=-lr * max(1, parameter.shape[0] ** 2 / parameter.numel()) ** 0.5)


def muon_and_adam(model: nn.Module, modules: Sequence[str]) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices and kernels of the modules with these names, AdamW for all the rest."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim >= 2 and any(f".{module}." in f".{name}" for module in modules)
        (matrices if inside else rest).append(parameter)
    adam = torch.optim.AdamW(rest, lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.98))
    return [Muon(matrices), adam]
