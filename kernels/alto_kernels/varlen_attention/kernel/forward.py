"""Mixed values and, for the backward pass, log2 of each row's sum of 2^score."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alto_kernels.varlen_attention.plan import CumulativeLengths
from alto_kernels.varlen_attention.tiles import MIXED

__all__ = ["attention_fwd", "load_keys", "log2_scale"]

_LOG2_E = 1.4426950408889634


def attention_fwd(
    q_TD: Tensor,
    k_TD: Tensor,
    v_TD: Tensor,
    cos_Td: Tensor,
    sin_Td: Tensor,
    lengths: CumulativeLengths,
    head_size: int,
) -> tuple[Tensor, Tensor]:
    """(T, D), and the logarithms (heads, T) in fp32. Keys are turned by their positions' angles;
    queries are turned here, where each is read once, and written back as they are then."""
    (T, width), tiles = q_TD.shape, MIXED[head_size]
    heads, key_heads = width // head_size, k_TD.shape[1] // head_size
    mixed_TD = q_TD.new_empty(T, width)
    lse_hT = q_TD.new_empty(heads, T, dtype=torch.float32)
    grid = (heads, len(lengths.lengths), tiles.query_blocks(lengths.longest))
    if T:
        _fwd_kernel[grid](
            q_TD, k_TD, v_TD, cos_Td, sin_Td, mixed_TD, lse_hT, lengths.ends, T,
            log2_scale(head_size),
            q_TD.stride(0), k_TD.stride(0), v_TD.stride(0), mixed_TD.stride(0),
            GROUP=heads // key_heads, SIZE=head_size, QUERIES=tiles.queries, KEYS=tiles.keys,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return mixed_TD, lse_hT


def log2_scale(head_size: int) -> float:
    """What scores are multiplied by, so that 2 to the power of them is what softmax adds up."""
    return float(head_size**-0.5 * _LOG2_E)


@triton.jit(do_not_specialize=["T"])
def _fwd_kernel(
    q, k, v, cos, sin, mixed, lse, ends, T, scale, q_t, k_t, v_t, mixed_t,
    GROUP: tl.constexpr, SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """QUERIES rows of one head, over all keys up to them; the keys beside them are masked."""
    first = tl.load(ends + tl.program_id(1)).to(tl.int64)
    length = (tl.load(ends + tl.program_id(1) + 1) - first).to(tl.int32)
    start = (tl.num_programs(2) - 1 - tl.program_id(2)) * QUERIES
    if start >= length:
        return
    head, diagonal = tl.program_id(0), start // KEYS * KEYS
    row, d = start + tl.arange(0, QUERIES), tl.arange(0, SIZE)
    n = tl.arange(0, KEYS)
    in_t = (row < length)[:, None]
    q += first * q_t + head * SIZE
    b_q = _turned(q, cos + first * (SIZE // 2), sin + first * (SIZE // 2), row, q_t, in_t, SIZE)
    k_nd = k + first * k_t + n[:, None] * k_t + (head // GROUP * SIZE + d)[None, :]
    v_nd = v + first * v_t + n[:, None] * v_t + (head // GROUP * SIZE + d)[None, :]
    acc = tl.zeros([QUERIES, SIZE], tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    most = tl.full([QUERIES], float("-inf"), tl.float32)
    acc, total, most = _attend(
        acc, total, most, b_q, k_nd, v_nd, k_t, v_t, row, n, 0, diagonal, length, scale, False, KEYS
    )
    k_nd += diagonal.to(tl.int64) * k_t
    v_nd += diagonal.to(tl.int64) * v_t
    end = tl.minimum(start + QUERIES, length)
    acc, total, most = _attend(
        acc, total, most, b_q, k_nd, v_nd, k_t, v_t, row, n, diagonal, end, length, scale, True,
        KEYS,
    )  # fmt: skip
    acc /= total[:, None]
    mixed_td = mixed + first * mixed_t + row.to(tl.int64)[:, None] * mixed_t
    mixed_td += (head * SIZE + d)[None, :]
    tl.store(mixed_td, acc.to(mixed.dtype.element_ty), mask=in_t)
    tl.store(lse + head.to(tl.int64) * T + first + row, most + tl.log2(total), mask=row < length)


@triton.jit
def _turned(q, cos, sin, row, q_t, in_t, SIZE: tl.constexpr):
    """Queries turned by their angles, in the tensor as well: each column with the one half a head
    beside it, which is read a second time, out of the cache."""
    HALF: tl.constexpr = SIZE // 2
    d, wide = tl.arange(0, SIZE), row.to(tl.int64)[:, None]
    angle = wide * HALF + (d % HALF)[None, :]
    b_cos = tl.load(cos + angle, mask=in_t, other=1.0)
    b_sin = tl.load(sin + angle, mask=in_t, other=0.0)
    b_q = tl.load(q + wide * q_t + d[None, :], mask=in_t, other=0.0)
    beside = tl.load(q + wide * q_t + ((d + HALF) % SIZE)[None, :], mask=in_t, other=0.0)
    tl.debug_barrier()  # nothing is written before all is read
    sign = tl.where(d < HALF, -1.0, 1.0)[None, :]
    turned = (b_q.to(tl.float32) * b_cos + sign * beside.to(tl.float32) * b_sin).to(b_q.dtype)
    tl.store(q + wide * q_t + d[None, :], turned, mask=in_t)
    return turned


@triton.jit
def _attend(
    acc, total, most, b_q, k_nd, v_nd, k_t, v_t, row, n, start, end, length, scale,
    MASKED: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Keys from `start` to `end` into what each row has so far, relative to its greatest score."""
    for n0 in range(start, end, KEYS):
        b_k, b_v = load_keys(k_nd, v_nd, n0 + n, length, MASKED)
        score = tl.dot(b_q, b_k.T, input_precision="ieee")
        if MASKED:
            score = tl.where((n0 + n)[None, :] <= row[:, None], score, float("-inf"))
        greatest = tl.maximum(most, tl.max(score, 1) * scale)
        p = tl.exp2(score * scale - greatest[:, None])
        shrunk = tl.exp2(most - greatest)
        total = total * shrunk + tl.sum(p, 1)
        acc = tl.dot(p.to(b_v.dtype), b_v, acc * shrunk[:, None], input_precision="ieee")
        most = greatest
        k_nd += KEYS * k_t
        v_nd += KEYS * v_t
    return acc, total, most


@triton.jit
def load_keys(k_nd, v_nd, n, length, MASKED: tl.constexpr):
    """A block of keys and of values; where `MASKED`, rows behind the sequence are zero."""
    if MASKED:
        in_n = (n < length)[:, None]
        b_k = tl.load(k_nd, mask=in_n, other=0.0)
        b_v = tl.load(v_nd, mask=in_n, other=0.0)
    else:
        b_k, b_v = tl.load(k_nd), tl.load(v_nd)
    return b_k, b_v
