"""What each job's optimizer step is, for the one AdamW that takes them all."""

import math

from alto_exec.adapters.bank import Slot
from alto_kernels.adamw import Update
from alto_policy.types import Hyperparameters, Schedule

__all__ = ["learning_rate_at", "update_of"]


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


def update_of(slot: Slot, hyperparameters: Hyperparameters, step: int, num_steps: int) -> Update:
    """Step `step` (0-based) of `num_steps` of the job in the slot, its gradient being complete."""
    h = hyperparameters
    return Update(
        first_rank=slot.first,
        end_rank=slot.rows.stop,
        step=step,
        rate=learning_rate_at(h, step, num_steps),
        weight_decay=h.weight_decay,
        beta1=h.beta1,
        beta2=h.beta2,
        epsilon=h.epsilon,
        clip=h.clip,
    )
