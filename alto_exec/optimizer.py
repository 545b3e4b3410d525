"""What each job's optimizer step is, for the one AdamW that takes them all."""

import math

from alto_exec.residence import Resident
from alto_kernels.adamw import Update
from alto_policy.types import Hyperparameters, Schedule

__all__ = ["learning_rate_at", "next_update"]


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


def next_update(resident: Resident) -> Update:
    """The step that the job's gradient is complete for."""
    h, step = resident.job.hyperparameters, resident.progress.step
    return Update(
        first_rank=resident.slot.first,
        end_rank=resident.slot.rows.stop,
        step=step,
        rate=learning_rate_at(h, step, resident.job.steps),
        weight_decay=h.weight_decay,
        beta1=h.beta1,
        beta2=h.beta2,
        epsilon=h.epsilon,
        clip=h.clip,
    )
