"""Run Muon in float32: torch's own runs its iteration in bfloat16, which many CPUs emulate slowly."""

from collections.abc import Iterable

import torch
from torch import Tensor


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
    """Update matrices with orthogonalised Nesterov momentum (Jordan et al. 2024); float32 throughout."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95) -> None:
        """Take matrices, or kernels, which are flattened to (out, in · height · width)."""
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
