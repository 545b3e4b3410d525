"""Chooses how a step is computed. Nothing is computed here."""

from collections.abc import Sequence

from torch import Tensor

from alto_kernels.adamw.plan import Bank, Update
from alto_kernels.adamw.reference import adamw_ref

__all__ = ["adamw"]


def adamw(bank: Bank, updates: Sequence[Update], losses: Tensor | None = None) -> None:
    """One step of every job in `updates`; on a GPU one launch, and two more where a job clips,
    whatever the number of jobs.

    With `losses`, one for each update on the bank's device, a job whose loss is not finite takes
    no step, and the host need not know.
    """
    if not updates:
        return
    if bank.value_RC.device.type == "cuda":
        from alto_kernels.adamw.kernel import adamw_step

        adamw_step(bank, updates, losses)
    else:
        adamw_ref(bank, updates, losses)
