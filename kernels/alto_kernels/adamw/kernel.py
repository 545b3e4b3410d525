"""Triton kernels and their launcher: squares of the gradients, each job's scale, the step."""

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from alto_kernels.adamw.codes import MEAN_PARTS, ROOT_PARTS, row_keys
from alto_kernels.adamw.plan import BLOCK, Bank, Update
from alto_kernels.copying import copied
from alto_kernels.lora_linear.kernel.mask import GOLDEN, mix

_TILE = 4096
_SUM_BLOCK = 1024
LOG2_10: tl.constexpr = tl.constexpr(3.321928094887362)


def adamw_step(bank: Bank, updates: Sequence[Update], losses: Tensor | None = None) -> None:
    """What `adamw_ref` does, for all updates at once."""
    device, columns = bank.value_RC.device, bank.value_RC.shape[1]
    tiles = triton.cdiv(columns, _TILE)
    ranks = np.array([u.end_rank - u.first_rank for u in updates])
    in_8_bits = bank.moments.in_8_bits
    table = _row_table(updates, ranks, with_dice=in_8_bits)
    rows = copied(torch.from_numpy(table), device)
    factors = copied(torch.tensor([u.factors for u in updates]), device)
    grid = (tiles, len(rows))
    scales = factors
    clips = any(u.clip is not None for u in updates)
    if clips:
        squares = torch.empty(len(rows), tiles, dtype=torch.float32, device=device)
        scales = torch.empty(len(updates), dtype=torch.float32, device=device)
        starts = np.cumsum((0, *ranks), dtype=np.int32)
        bounds = copied(torch.from_numpy(starts), device)
        _squares_kernel[grid](
            bank.grad_RC, rows, squares, columns, tiles, bank.grad_RC.stride(0), TILE=_TILE,
            num_warps=8,
        )  # fmt: skip
        _scale_kernel[(len(updates),)](
            squares, bounds, factors, scales, tiles, BLOCK=_SUM_BLOCK, num_warps=8
        )
    moments, copy = bank.moments, bank.value_RC if bank.copy_RC is None else bank.copy_RC
    largest = torch.finfo(copy.dtype).max
    mean_scale = moments.mean_scale_RB if in_8_bits else scales
    root_scale = moments.root_scale_RB if in_8_bits else scales
    _step_kernel[grid](
        bank.value_RC, bank.grad_RC, moments.mean_RC, moments.square_RC, mean_scale, root_scale,
        copy, rows, factors, scales, scales if losses is None else losses, columns,
        bank.value_RC.stride(0), copy.stride(0), mean_scale.stride(0), largest,
        HAS_COPY=bank.copy_RC is not None, GUARDED=losses is not None, CLIPS=clips,
        IN_8_BITS=in_8_bits,
        GROUPS=_TILE // BLOCK, BLOCK=BLOCK,
        MEAN_LAST=MEAN_PARTS.bit_length() - 1, ROOT_LAST=ROOT_PARTS.bit_length() - 1,
        num_warps=8,
    )  # fmt: skip


def _row_table(updates: Sequence[Update], ranks: np.ndarray, *, with_dice: bool) -> np.ndarray:
    """(rows that step, 3) int32: the row of the bank, whose it is, and dice."""
    rows = np.concatenate([np.arange(u.first_rank, u.end_rank) for u in updates])
    jobs = np.repeat(np.arange(len(updates)), ranks)
    keys = np.zeros_like(rows)
    if with_dice:
        counts = zip(updates, ranks, strict=True)
        keys = np.concatenate([row_keys(u.step, int(count)).numpy() for u, count in counts])
    return np.stack((rows, jobs, keys), 1).astype(np.uint32).view(np.int32)


@triton.jit
def _squares_kernel(grad, rows, squares, columns, tiles, grad_r, TILE: tl.constexpr):
    """Sum of the squares of TILE elements of one row."""
    row = tl.load(rows + 3 * tl.program_id(1)).to(tl.int64)
    c = tl.program_id(0) * TILE + tl.arange(0, TILE)
    g = tl.load(grad + row * grad_r + c, mask=c < columns, other=0.0)
    tl.store(squares + tl.program_id(1) * tiles + tl.program_id(0), tl.sum(g * g))


@triton.jit
def _scale_kernel(squares, bounds, factors, scales, tiles, BLOCK: tl.constexpr):
    """What one job's gradient is multiplied by."""
    job = tl.program_id(0)
    first, end = tl.load(bounds + job) * tiles, tl.load(bounds + job + 1) * tiles
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
    value, grad, mean, square, mean_scale, root_scale, copy, rows, factors, scales, losses,
    columns, bank_r, copy_r, scale_r, largest, HAS_COPY: tl.constexpr, GUARDED: tl.constexpr,
    CLIPS: tl.constexpr, IN_8_BITS: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr,
    MEAN_LAST: tl.constexpr, ROOT_LAST: tl.constexpr,
):  # fmt: skip
    """GROUPS blocks of one row."""
    entry = rows + 3 * tl.program_id(1)
    row, job = tl.load(entry).to(tl.int64), tl.load(entry + 1)
    factor = factors + 8 * job
    decay, w1 = tl.load(factor + 1), tl.load(factor + 2)
    beta2, w2 = tl.load(factor + 3), tl.load(factor + 4)
    correction, epsilon, step = tl.load(factor + 5), tl.load(factor + 6), tl.load(factor + 7)
    block = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)[:, None]
    c = block * BLOCK + tl.arange(0, BLOCK)[None, :]
    at, scale_at, in_block = row * bank_r + c, row * scale_r + block, block * BLOCK < columns
    if GUARDED:  # with a block of it, since Triton's interpreter takes no number there
        loss = tl.load(losses + job) + tl.zeros([GROUPS, 1], tl.float32)
        in_block = in_block & (loss - loss == 0.0)  # of what is not finite that is no number
    in_c = in_block & (c < columns)
    g = tl.load(grad + at, mask=in_c, other=0.0)
    if CLIPS:
        g *= tl.load(scales + job)
    v = tl.load(value + at, mask=in_c, other=0.0)
    m, q = tl.load(mean + at, mask=in_c, other=0), tl.load(square + at, mask=in_c, other=0)
    if IN_8_BITS:
        size = _share(m.to(tl.int32) & 127, MEAN_LAST)
        size *= tl.load(mean_scale + scale_at, mask=in_block, other=0.0)
        m = tl.where(m >= 128, -size, size)
        root = _share(q.to(tl.int32), ROOT_LAST)
        root *= tl.load(root_scale + scale_at, mask=in_block, other=0.0)
        q = root * root
    m += w1 * (g - m)
    q = q * beta2 + w2 * g * g
    root = tl.sqrt(q)
    v = v * decay - step * (m / (root / correction + epsilon))
    tl.store(value + at, v, mask=in_c)
    if IN_8_BITS:
        key = tl.load(entry + 2).to(tl.uint32, bitcast=True)
        bits = mix(key + c.to(tl.uint32) * GOLDEN)
        size, top = tl.abs(m), tl.max(tl.abs(m), axis=1, keep_dims=True)
        code = _code(size, top, bits & 0xFFFF, MEAN_LAST)
        tl.store(mean + at, (code + 128 * (m < 0)).to(tl.uint8), mask=in_c)
        tl.store(mean_scale + scale_at, top, mask=in_block)
        top = tl.max(root, axis=1, keep_dims=True)
        code = _code(root, top, bits >> 16, ROOT_LAST)
        code = tl.where(root > 0, tl.maximum(code, 1), code)
        tl.store(square + at, code.to(tl.uint8), mask=in_c)
        tl.store(root_scale + scale_at, top, mask=in_block)
    else:
        tl.store(mean + at, m, mask=in_c)
        tl.store(square + at, q, mask=in_c)
    if HAS_COPY:
        finite = tl.where(v == v, tl.minimum(tl.maximum(v, -largest), largest), largest)
        tl.store(copy + row * copy_r + c, finite.to(copy.dtype.element_ty), mask=in_c)


# Within a decade of `codes.py` both ways are a line. Its slope and start are powers of the decade's
# number: chosen among those of all decades, they would take three times as long as the memory does.
@triton.jit
def _share(code, LAST: tl.constexpr):
    """Of the largest in the block; so many decades are behind the first."""
    number = code.to(tl.float32)
    power = number.to(tl.int32, bitcast=True) >> 23  # of two, 127 above the highest bit's
    one_part = ((254 - power) << 23).to(tl.float32, bitcast=True)
    # 0 for the code 0, whose power is that of no number.
    decade = tl.exp2((power - (127 + LAST)).to(tl.float32) * LOG2_10)
    return decade * (0.1 + 0.9 * (number * one_part + (one_part - 1.0)))


@triton.jit
def _code(size, top, dice, LAST: tl.constexpr):
    """int32; `dice` has 16 bits."""
    share = size * (1.0 / tl.where(top > 0, top, 1.0))
    # Which is not exact: the largest may come out above one, where no code is.
    share = tl.minimum(tl.where(share == share, share, 0.0), 1.0)
    # That of the power of two above, or the next.
    power = share.to(tl.int32, bitcast=True) >> 23
    decade = tl.minimum(((126 - power).to(tl.float32) * (1.0 / LOG2_10)).to(tl.int32), LAST)
    is_next = share <= tl.exp2((decade + 1).to(tl.float32) * (-LOG2_10))
    decade = tl.minimum(tl.where(is_next, decade + 1, decade), LAST)
    parts = ((127 + LAST - decade) << 23).to(tl.float32, bitcast=True)
    slope = tl.exp2(decade.to(tl.float32) * (LOG2_10 - 1.0)) * ((1 << LAST) / 0.9)
    is_last = decade == LAST  # which begins at zero
    place = share * tl.where(is_last, 10.0**LAST, slope)
    place += tl.where(is_last, 0.0, parts * (8.0 / 9.0) - 1.0)
    code = (place + dice.to(tl.float32) / 65536).to(tl.int32)
    return tl.minimum(code, (2 << LAST) - 1)
