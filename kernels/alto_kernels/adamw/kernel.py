"""Triton kernels and their launcher: squares of the gradients, each job's scale, the step."""

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from alto_kernels.adamw.plan import Bank, Update

_BLOCK = 4096
_SUM_BLOCK = 1024


def adamw_step(bank: Bank, updates: Sequence[Update], losses: Tensor | None = None) -> None:
    """What `adamw_ref` does, for all updates at once."""
    device, columns = bank.value_RC.device, bank.value_RC.shape[1]
    blocks = triton.cdiv(columns, _BLOCK)
    ranks = np.array([u.end_rank - u.first_rank for u in updates])
    bank_rows = [np.arange(u.first_rank, u.end_rank) for u in updates]
    row_table = np.stack((np.concatenate(bank_rows), np.repeat(np.arange(len(updates)), ranks)), 1)
    rows = _on_device(torch.from_numpy(row_table.astype(np.int32)), device)
    starts = np.cumsum((0, *ranks), dtype=np.int32)
    bounds = _on_device(torch.from_numpy(starts), device)
    factors = _on_device(torch.tensor([u.factors for u in updates]), device)
    squares = torch.empty(len(row_table), blocks, dtype=torch.float32, device=device)
    scales = torch.empty(len(updates), dtype=torch.float32, device=device)
    grid = (blocks, len(row_table))
    _squares_kernel[grid](
        bank.grad_RC, rows, squares, columns, blocks, bank.grad_RC.stride(0), BLOCK=_BLOCK,
        num_warps=8,
    )  # fmt: skip
    _scale_kernel[(len(updates),)](
        squares, bounds, factors, scales, blocks, BLOCK=_SUM_BLOCK, num_warps=8
    )
    copy = bank.value_RC if bank.copy_RC is None else bank.copy_RC
    largest = torch.finfo(copy.dtype).max
    _step_kernel[grid](
        bank.value_RC, bank.grad_RC, bank.mean_RC, bank.square_RC, copy, rows, factors, scales,
        scales if losses is None else losses, columns, bank.value_RC.stride(0), copy.stride(0),
        largest, HAS_COPY=bank.copy_RC is not None, GUARDED=losses is not None, BLOCK=_BLOCK,
        num_warps=8,
    )  # fmt: skip


def _on_device(table: Tensor, device: torch.device) -> Tensor:
    """Copied without waiting for what the device is at."""
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


@triton.jit
def _squares_kernel(grad, rows, squares, columns, blocks, grad_r, BLOCK: tl.constexpr):
    """Sum of the squares of BLOCK elements of one row."""
    row = tl.load(rows + 2 * tl.program_id(1)).to(tl.int64)
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(grad + row * grad_r + c, mask=c < columns, other=0.0)
    tl.store(squares + tl.program_id(1) * blocks + tl.program_id(0), tl.sum(g * g))


@triton.jit
def _scale_kernel(squares, bounds, factors, scales, blocks, BLOCK: tl.constexpr):
    """What one job's gradient is multiplied by."""
    job = tl.program_id(0)
    first, end = tl.load(bounds + job) * blocks, tl.load(bounds + job + 1) * blocks
    total = tl.zeros([BLOCK], tl.float32)
    for i0 in range(first, end, BLOCK):
        i = i0 + tl.arange(0, BLOCK)
        total += tl.load(squares + i, mask=i < end, other=0.0)
    clip = tl.load(factors + 8 * job)
    scale = clip / (tl.sqrt(tl.sum(total)) + 1e-6)
    # A scale that is no number must stay so: the job's values are lost with it.
    tl.store(scales + job, tl.where((scale > 1.0) | (clip == float("inf")), 1.0, scale))


@triton.jit
def _step_kernel(
    value, grad, mean, square, copy, rows, factors, scales, losses, columns, bank_r, copy_r,
    largest, HAS_COPY: tl.constexpr, GUARDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK elements of one row."""
    row = tl.load(rows + 2 * tl.program_id(1)).to(tl.int64)
    job = tl.load(rows + 2 * tl.program_id(1) + 1)
    factor = factors + 8 * job
    decay, w1 = tl.load(factor + 1), tl.load(factor + 2)
    beta2, w2 = tl.load(factor + 3), tl.load(factor + 4)
    correction, epsilon, step = tl.load(factor + 5), tl.load(factor + 6), tl.load(factor + 7)
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at, in_c = row * bank_r + c, c < columns
    if GUARDED:  # with a block of it, since Triton's interpreter takes no number there
        loss = tl.load(losses + job) + tl.zeros([BLOCK], tl.float32)
        in_c = in_c & (loss - loss == 0.0)  # of what is not finite that is no number
    g = tl.load(grad + at, mask=in_c, other=0.0) * tl.load(scales + job)
    m = tl.load(mean + at, mask=in_c, other=0.0)
    q = tl.load(square + at, mask=in_c, other=0.0)
    v = tl.load(value + at, mask=in_c, other=0.0)
    m += w1 * (g - m)
    q = q * beta2 + w2 * g * g
    v = v * decay - step * (m / (tl.sqrt(q) / correction + epsilon))
    tl.store(value + at, v, mask=in_c)
    tl.store(mean + at, m, mask=in_c)
    tl.store(square + at, q, mask=in_c)
    tl.store(grad + at, tl.zeros([BLOCK], tl.float32), mask=in_c)
    if HAS_COPY:
        finite = tl.where(v == v, tl.minimum(tl.maximum(v, -largest), largest), largest)
        tl.store(copy + row * copy_r + c, finite.to(copy.dtype.element_ty), mask=in_c)
