"""AdamW on one job's rows of the bank, each job with its own rates, moments and step count."""

import math

import torch

from alto_exec.bank import AdapterBank, Slot
from alto_policy.types import Hyperparameters, Schedule

__all__ = ["adamw_step", "learning_rate_at"]


def learning_rate_at(hyperparameters: Hyperparameters, step: int, num_steps: int) -> float:
    """Learning rate of step `step` (0-based) of `num_steps`, as transformers' schedules have it."""
    peak = hyperparameters.learning_rate
    rising = math.ceil(hyperparameters.rise * num_steps)
    if step < rising:
        return peak * step / rising
    if hyperparameters.schedule is Schedule.CONSTANT:
        return peak
    done = (step - rising) / max(1, num_steps - rising)
    if hyperparameters.schedule is Schedule.LINEAR:
        return peak * (1 - done)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def adamw_step(
    bank: AdapterBank, slot: Slot, hyperparameters: Hyperparameters, step: int, num_steps: int
) -> None:
    """Clip the job's gradient, take step `step` (0-based) of `num_steps`, clear the gradient.

    The arithmetic and its order are those of torch.optim.AdamW (Loshchilov and Hutter 2019).
    """
    h = hyperparameters
    value, gradient = bank.value_RC[slot.rows], bank.grad_RC[slot.rows]
    mean, square = bank.mean_RC[slot.rows], bank.square_RC[slot.rows]
    rate = learning_rate_at(h, step, num_steps)
    if h.clip is not None:
        norm = torch.linalg.vector_norm(gradient)
        gradient.mul_((h.clip / (norm + 1e-6)).clamp(max=1.0))
    value.mul_(1 - rate * h.weight_decay)
    mean.lerp_(gradient, 1 - h.beta1)
    square.mul_(h.beta2).addcmul_(gradient, gradient, value=1 - h.beta2)
    mean_correction = 1 - h.beta1 ** (step + 1)
    square_correction = 1 - h.beta2 ** (step + 1)
    denominator = (square.sqrt() / math.sqrt(square_correction)).add_(h.epsilon)
    value.addcdiv_(mean, denominator, value=-rate / mean_correction)
    gradient.zero_()
    bank.refresh(slot)
