"""The definition, in the arithmetic and order of torch.optim.AdamW (Loshchilov and Hutter 2019)."""

import math
from collections.abc import Sequence

import torch

from alto_kernels.adamw.plan import Bank, JobStep

__all__ = ["adamw_ref"]


@torch.no_grad()
def adamw_ref(bank: Bank, steps: Sequence[JobStep]) -> None:
    """Clip each job's gradient, take its step, clear the gradient, renew the narrow copy."""
    for s in steps:
        rows = slice(s.first_row, s.end_row)
        value, gradient = bank.value_RC[rows], bank.grad_RC[rows]
        mean, square = bank.mean_RC[rows], bank.square_RC[rows]
        if s.clip is not None:
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_((s.clip / (norm + 1e-6)).clamp(max=1.0))
        value.mul_(1 - s.rate * s.weight_decay)
        mean.lerp_(gradient, 1 - s.beta1)
        square.mul_(s.beta2).addcmul_(gradient, gradient, value=1 - s.beta2)
        denominator = (square.sqrt() / math.sqrt(s.square_correction)).add_(s.epsilon)
        value.addcdiv_(mean, denominator, value=-s.rate / s.mean_correction)
        gradient.zero_()
        if bank.shadow_RC is not bank.value_RC:
            bank.shadow_RC[rows] = value
