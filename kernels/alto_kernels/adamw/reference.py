"""The definition: the arithmetic of torch.optim.AdamW (Loshchilov and Hutter 2019)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alto_kernels.adamw import codes
from alto_kernels.adamw.plan import Bank, Update

__all__ = ["adamw_ref"]


@torch.no_grad()
def adamw_ref(bank: Bank, updates: Sequence[Update], losses: Tensor | None = None) -> None:
    """Take each job's step by its clipped gradient; none for a job whose loss is not finite. The
    gradient stays: the first pass of the next step writes over it."""
    takes_step = [True] * len(updates) if losses is None else losses.isfinite().tolist()
    for update in (update for update, takes in zip(updates, takes_step, strict=True) if takes):
        clip, decay, w1, beta2, w2, correction, epsilon, step = update.factors
        rows = slice(update.first_rank, update.end_rank)
        value, gradient = bank.value_RC[rows], bank.grad_RC[rows]
        if clip < math.inf:
            norm = torch.linalg.vector_norm(gradient)
            gradient = gradient * (clip / (norm + 1e-6)).clamp(max=1.0)
        mean, square = _moments(bank, rows)
        value.mul_(decay)
        mean.lerp_(gradient, w1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=w2)
        value.addcdiv_(mean, (square.sqrt() / correction).add_(epsilon), value=-step)
        if bank.moments.in_8_bits:
            keys = codes.row_keys(update.step, update.end_rank - update.first_rank)
            codes.store(bank.moments, rows, mean, square, keys)
        if bank.copy_RC is not None:
            largest = torch.finfo(bank.copy_RC.dtype).max
            finite = value.nan_to_num(largest).clamp(-largest, largest)
            bank.copy_RC[rows] = finite.to(bank.copy_RC.dtype)


def _moments(bank: Bank, rows: slice) -> tuple[Tensor, Tensor]:
    """The bank's own, or what its codes stand for."""
    if bank.moments.in_8_bits:
        return codes.load(bank.moments, rows)
    return bank.moments.mean_RC[rows], bank.moments.square_RC[rows]
