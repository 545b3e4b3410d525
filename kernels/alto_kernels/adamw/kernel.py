"""Triton kernels and their launcher. One program for a block of columns of a row that steps.

Shapes: D rows that take a step, J jobs, C columns of the bank, B blocks of columns.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from alto_kernels.adamw.plan import Bank, JobStep

__all__ = ["adamw_step"]

_BLOCK = 2048
_NUMBERS = 8  # of a job, see `_tables`


def adamw_step(bank: Bank, steps: Sequence[JobStep]) -> None:
    """All jobs' steps in one launch, after two more where a job clips. Deterministic."""
    C = bank.value_RC.shape[1]
    rows_D2, numbers_J = _tables(steps, bank.value_RC.device)
    grid = (rows_D2.shape[0], triton.cdiv(C, _BLOCK))
    clips = any(step.clip is not None for step in steps)
    factors_J = None
    if clips:
        sums_DB = torch.empty(grid, dtype=torch.float32, device=bank.value_RC.device)
        _square_kernel[grid](bank.grad_RC, rows_D2, sums_DB, C, grid[1], BLOCK=_BLOCK)
        factors_J = _clip_factors(sums_DB, steps)
    _step_kernel[grid](
        bank.value_RC, bank.grad_RC, bank.mean_RC, bank.square_RC, bank.shadow_RC,
        rows_D2, numbers_J, factors_J, C,
        CLIPS=clips, COPIES=bank.shadow_RC is not bank.value_RC, NUMBERS=_NUMBERS, BLOCK=_BLOCK,
    )  # fmt: skip


def _tables(steps: Sequence[JobStep], device: torch.device) -> tuple[Tensor, Tensor]:
    """(D, 2) bank row and job of each row that steps, and (J, 8) what a job needs, fp32."""
    rows = [(row, job) for job, s in enumerate(steps) for row in range(s.first_row, s.end_row)]
    numbers = [
        (
            1 - s.rate * s.weight_decay,
            1 - s.beta1,
            s.beta2,
            1 - s.beta2,
            1 / math.sqrt(s.square_correction),
            s.epsilon,
            -s.rate / s.mean_correction,
            0.0,
        )
        for s in steps
    ]
    rows_D2 = torch.tensor(rows, dtype=torch.int32).to(device, non_blocking=True)
    return rows_D2, torch.tensor(numbers, dtype=torch.float32).to(device, non_blocking=True)


def _clip_factors(sums_DB: Tensor, steps: Sequence[JobStep]) -> Tensor:
    """(J,) what each job's gradient is multiplied by; rows are summed in a fixed order."""
    device = sums_DB.device
    counts = [s.end_row - s.first_row for s in steps]
    norms_J = torch.stack([part.sum().sqrt() for part in sums_DB.sum(1).split(counts)])
    limits = [math.inf if s.clip is None else s.clip for s in steps]
    limits_J = torch.tensor(limits, dtype=torch.float32).to(device, non_blocking=True)
    return (limits_J / (norms_J + 1e-6)).clamp(max=1.0)


@triton.jit
def _square_kernel(grad, rows, sums, C, B, BLOCK: tl.constexpr):
    at, block = tl.program_id(0), tl.program_id(1)
    row = tl.load(rows + 2 * at).to(tl.int64)
    column = block * BLOCK + tl.arange(0, BLOCK)
    b_grad = tl.load(grad + row * C + column, mask=column < C, other=0.0)
    tl.store(sums + at * B + block, tl.sum(b_grad * b_grad))


@triton.jit
def _step_kernel(
    value, grad, mean, square, shadow, rows, numbers, factors, C,
    CLIPS: tl.constexpr, COPIES: tl.constexpr, NUMBERS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at, block = tl.program_id(0), tl.program_id(1)
    row = tl.load(rows + 2 * at).to(tl.int64)
    job = tl.load(rows + 2 * at + 1)
    of_job = numbers + job * NUMBERS
    decay, one_minus_beta1 = tl.load(of_job), tl.load(of_job + 1)
    beta2, one_minus_beta2 = tl.load(of_job + 2), tl.load(of_job + 3)
    correction, epsilon, rate = tl.load(of_job + 4), tl.load(of_job + 5), tl.load(of_job + 6)
    column = block * BLOCK + tl.arange(0, BLOCK)
    inside = column < C
    place = row * C + column
    b_grad = tl.load(grad + place, mask=inside, other=0.0)
    if CLIPS:
        b_grad *= tl.load(factors + job)
    b_mean = tl.load(mean + place, mask=inside, other=0.0)
    b_mean += one_minus_beta1 * (b_grad - b_mean)
    b_square = tl.load(square + place, mask=inside, other=0.0)
    b_square = beta2 * b_square + one_minus_beta2 * b_grad * b_grad
    b_value = tl.load(value + place, mask=inside, other=0.0) * decay
    b_value += rate * b_mean / (tl.sqrt(b_square) * correction + epsilon)
    tl.store(value + place, b_value, mask=inside)
    tl.store(mean + place, b_mean, mask=inside)
    tl.store(square + place, b_square, mask=inside)
    tl.store(grad + place, tl.zeros_like(b_grad), mask=inside)
    if COPIES:
        tl.store(shadow + place, b_value.to(shadow.dtype.element_ty), mask=inside)
