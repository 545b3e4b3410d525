"""The definition: the arithmetic of torch.optim.AdamW (Loshchilov and Hutter 2019)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alto_kernels.adamw.plan import Bank, Update

__all__ = ["adamw_ref"]


@torch.no_grad()
def adamw_ref(bank: Bank, updates: Sequence[Update], losses: Tensor | None = None) -> None:
    """Clip each job's gradient, take its step, clear the gradient; nothing of that for a job
    whose loss is not finite."""
    takes_step = [True] * len(updates) if losses is None else losses.isfinite().tolist()
    for update in (update for update, takes in zip(updates, takes_step, strict=True) if takes):
        clip, decay, w1, beta2, w2, correction, epsilon, step = update.factors
        rows = slice(update.first_rank, update.end_rank)
        value, gradient = bank.value_RC[rows], bank.grad_RC[rows]
        mean, square = bank.mean_RC[rows], bank.square_RC[rows]
        if clip < math.inf:
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
        value.mul_(decay)
        mean.lerp_(gradient, w1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=w2)
        value.addcdiv_(mean, (square.sqrt() / correction).add_(epsilon), value=-step)
        gradient.zero_()
        if bank.copy_RC is not None:
            largest = torch.finfo(bank.copy_RC.dtype).max
            finite = value.nan_to_num(largest).clamp(-largest, largest)
            bank.copy_RC[rows] = finite.to(bank.copy_RC.dtype)
