"""Chooses between kernel and definition by where the bank lies."""

from collections.abc import Sequence

from alto_kernels.adamw.plan import Bank, JobStep
from alto_kernels.adamw.reference import adamw_ref

__all__ = ["adamw"]


def adamw(bank: Bank, steps: Sequence[JobStep]) -> None:
    """Clip, step and clear the gradients of the jobs; rows of others stay as they are."""
    if bank.value_RC.is_cuda and steps:
        from alto_kernels.adamw.kernel import adamw_step

        adamw_step(bank, steps)
    else:
        adamw_ref(bank, steps)
