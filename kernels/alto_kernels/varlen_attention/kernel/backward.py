"""Gradients of queries, keys and values, without atomics: one pass over the keys for those of
queries, one over the queries for those of keys and values. Where queries and keys were turned by
their positions' angles, their gradients are turned back before they are stored."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alto_kernels.varlen_attention.kernel.forward import load_keys, log2_scale
from alto_kernels.varlen_attention.plan import CumulativeLengths
from alto_kernels.varlen_attention.tiles import KEY_GRADIENTS, QUERY_GRADIENTS

__all__ = ["attention_bwd"]


def attention_bwd(
    dmixed_TD: Tensor,
    q_TD: Tensor,
    k_TD: Tensor,
    v_TD: Tensor,
    mixed_TD: Tensor,
    lse_hT: Tensor,
    cos_Td: Tensor,
    sin_Td: Tensor,
    lengths: CumulativeLengths,
    head_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of q and k as they were before they were turned; columns of one tensor.

    Those of keys and values are summed over the query heads that share them.
    """
    widths = [t.shape[1] for t in (q_TD, k_TD, v_TD)]
    (heads, T), key_heads = lse_hT.shape, k_TD.shape[1] // head_size
    dq_TD, dk_TD, dv_TD = q_TD.new_empty(T, sum(widths)).split(widths, dim=1)
    if not T:
        return dq_TD, dk_TD, dv_TD
    delta_hT = torch.empty_like(lse_hT)
    sequences, factors = len(lengths.lengths), (log2_scale(head_size), head_size**-0.5)
    strides = tuple(t.stride(0) for t in (q_TD, k_TD, v_TD, dmixed_TD))
    group, tiles = heads // key_heads, QUERY_GRADIENTS[head_size]
    _dq_kernel[(heads, sequences, tiles.query_blocks(lengths.longest))](
        q_TD, k_TD, v_TD, mixed_TD, dmixed_TD, lse_hT, delta_hT, dq_TD, cos_Td, sin_Td,
        lengths.ends, T, *factors, *strides, dq_TD.stride(0),
        GROUP=group, SIZE=head_size, QUERIES=tiles.queries, KEYS=tiles.keys,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    tiles = KEY_GRADIENTS[head_size]
    _dkdv_kernel[(key_heads, sequences, tiles.key_blocks(lengths.longest))](
        q_TD, k_TD, v_TD, dmixed_TD, lse_hT, delta_hT, dk_TD, dv_TD, cos_Td, sin_Td,
        lengths.ends, T, *factors, *strides, dk_TD.stride(0),
        GROUP=group, SIZE=head_size, QUERIES=tiles.queries, KEYS=tiles.keys,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return dq_TD, dk_TD, dv_TD


@triton.jit(do_not_specialize=["T"])
def _dq_kernel(
    q, k, v, mixed, dmixed, lse, delta, dq, cos, sin, ends, T, log2_scale, scale,
    q_t, k_t, v_t, mixed_t, dq_t,
    GROUP: tl.constexpr, SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """QUERIES rows of one head, over all keys up to them. Delta is what softmax's own gradient
    takes from each row: the sum of mixed * dmixed."""
    first = tl.load(ends + tl.program_id(1)).to(tl.int64)
    length = (tl.load(ends + tl.program_id(1) + 1) - first).to(tl.int32)
    start = (tl.num_programs(2) - 1 - tl.program_id(2)) * QUERIES
    if start >= length:
        return
    head, diagonal = tl.program_id(0), start // KEYS * KEYS
    row, d = start + tl.arange(0, QUERIES), tl.arange(0, SIZE)
    n = tl.arange(0, KEYS)
    in_t, wide = row < length, (first + row)[:, None]
    column, key_column = (head * SIZE + d)[None, :], (head // GROUP * SIZE + d)[None, :]
    b_q = tl.load(q + wide * q_t + column, mask=in_t[:, None], other=0.0)
    b_dmixed = tl.load(dmixed + wide * mixed_t + column, mask=in_t[:, None], other=0.0)
    b_mixed = tl.load(mixed + wide * mixed_t + column, mask=in_t[:, None], other=0.0)
    b_delta = tl.sum(b_mixed.to(tl.float32) * b_dmixed.to(tl.float32), 1)
    place = head.to(tl.int64) * T + first + row
    tl.store(delta + place, b_delta, mask=in_t)
    b_lse = tl.load(lse + place, mask=in_t, other=0.0)
    k_nd = k + first * k_t + n[:, None] * k_t + key_column
    v_nd = v + first * v_t + n[:, None] * v_t + key_column
    acc = tl.zeros([QUERIES, SIZE], tl.float32)
    acc = _over_keys(
        acc, b_q, b_dmixed, b_lse, b_delta, k_nd, v_nd, k_t, v_t, row, n, 0, diagonal, length,
        log2_scale, False, KEYS,
    )  # fmt: skip
    k_nd += diagonal.to(tl.int64) * k_t
    v_nd += diagonal.to(tl.int64) * v_t
    end = tl.minimum(start + QUERIES, length)
    acc = _over_keys(
        acc, b_q, b_dmixed, b_lse, b_delta, k_nd, v_nd, k_t, v_t, row, n, diagonal, end, length,
        log2_scale, True, KEYS,
    )  # fmt: skip
    dq += (first + row)[:, None] * dq_t + head * SIZE
    _store_turned_back(dq, acc * scale, cos, sin, first + row, in_t, SIZE)


@triton.jit
def _store_turned_back(to, d, cos, sin, row, in_t, SIZE: tl.constexpr):
    """The gradient of one head in rows `row`: each column of its first half is turned together
    with the one half a head behind it."""
    HALF: tl.constexpr = SIZE // 2
    angle, mask = tl.arange(0, HALF), in_t[:, None]
    at = row[:, None] * HALF + angle[None, :]
    b_cos = tl.load(cos + at, mask=mask, other=1.0)
    b_sin = tl.load(sin + at, mask=mask, other=0.0)
    a, b = d.reshape(d.shape[0], 2, HALF).permute(0, 2, 1).split()
    dtype = to.dtype.element_ty
    tl.store(to + angle[None, :], (a * b_cos + b * b_sin).to(dtype), mask=mask)
    tl.store(to + HALF + angle[None, :], (b * b_cos - a * b_sin).to(dtype), mask=mask)


@triton.jit
def _over_keys(
    acc, b_q, b_dmixed, b_lse, b_delta, k_nd, v_nd, k_t, v_t, row, n, start, end, length,
    log2_scale, MASKED: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    for n0 in range(start, end, KEYS):
        b_k, b_v = load_keys(k_nd, v_nd, n0 + n, length, MASKED)
        score = tl.dot(b_q, b_k.T, input_precision="ieee")
        p = tl.exp2(score * log2_scale - b_lse[:, None])
        if MASKED:
            p = tl.where((n0 + n)[None, :] <= row[:, None], p, 0.0)
        dp = tl.dot(b_dmixed, b_v.T, input_precision="ieee")
        dscore = (p * (dp - b_delta[:, None])).to(b_k.dtype)
        acc = tl.dot(dscore, b_k, acc, input_precision="ieee")
        k_nd += KEYS * k_t
        v_nd += KEYS * v_t
    return acc


@triton.jit(do_not_specialize=["T"])
def _dkdv_kernel(
    q, k, v, dmixed, lse, delta, dk, dv, cos, sin, ends, T, log2_scale, scale,
    q_t, k_t, v_t, mixed_t, dk_t,
    GROUP: tl.constexpr, SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """KEYS rows of one key head, over the queries from them on of all heads that share it."""
    first = tl.load(ends + tl.program_id(1)).to(tl.int64)
    length = (tl.load(ends + tl.program_id(1) + 1) - first).to(tl.int32)
    start = tl.program_id(2) * KEYS
    if start >= length:
        return
    head = tl.program_id(0) * GROUP
    row, d = start + tl.arange(0, KEYS), tl.arange(0, SIZE)
    in_n, wide = (row < length)[:, None], (first + row)[:, None]
    column, m = (tl.program_id(0) * SIZE + d)[None, :], tl.arange(0, QUERIES)
    b_k = tl.load(k + wide * k_t + column, mask=in_n, other=0.0)
    b_v = tl.load(v + wide * v_t + column, mask=in_n, other=0.0)
    q_md = q + first * q_t + m[:, None] * q_t + (head * SIZE + d)[None, :]
    dmixed_md = dmixed + first * mixed_t + m[:, None] * mixed_t + (head * SIZE + d)[None, :]
    place = head.to(tl.int64) * T + first
    acc_k = tl.zeros([KEYS, SIZE], tl.float32)
    acc_v = tl.zeros([KEYS, SIZE], tl.float32)
    beside = start + tl.cdiv(KEYS, QUERIES) * QUERIES  # where all queries see all of these keys
    acc_k, acc_v = _over_queries(
        acc_k, acc_v, b_k, b_v, q_md, dmixed_md, lse + place, delta + place, T, q_t, mixed_t, row,
        m, start, tl.minimum(beside, length), length, log2_scale, True, GROUP, SIZE, QUERIES,
    )  # fmt: skip
    acc_k, acc_v = _over_queries(
        acc_k, acc_v, b_k, b_v, q_md, dmixed_md, lse + place, delta + place, T, q_t, mixed_t, row,
        m, beside, length, length, log2_scale, False, GROUP, SIZE, QUERIES,
    )  # fmt: skip
    dk += wide * dk_t + tl.program_id(0) * SIZE
    _store_turned_back(dk, acc_k * scale, cos, sin, first + row, row < length, SIZE)
    tl.store(dv + wide * dk_t + column, acc_v.to(dv.dtype.element_ty), mask=in_n)


@triton.jit
def _over_queries(
    acc_k, acc_v, b_k, b_v, q_md, dmixed_md, lse, delta, T, q_t, mixed_t, row, m,
    start, end, length, log2_scale,
    MASKED: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Blocks of queries from `start` to `end`, each for all heads: one loop, which is pipelined
    as a whole. Scores are transposed: a row for each key."""
    for step in range(tl.cdiv(end - start, QUERIES) * GROUP):
        m0, head = start + step // GROUP * QUERIES, step % GROUP
        in_m = m0 + m < length
        b_q = tl.load(q_md + m0.to(tl.int64) * q_t + head * SIZE, mask=in_m[:, None], other=0.0)
        b_dmixed = tl.load(
            dmixed_md + m0.to(tl.int64) * mixed_t + head * SIZE, mask=in_m[:, None], other=0.0
        )
        b_lse = tl.load(lse + head * T + m0 + m, mask=in_m, other=float("inf"))
        b_delta = tl.load(delta + head * T + m0 + m, mask=in_m, other=0.0)
        score = tl.dot(b_k, b_q.T, input_precision="ieee")
        p = tl.exp2(score * log2_scale - b_lse[None, :])
        if MASKED:
            p = tl.where(row[:, None] <= (m0 + m)[None, :], p, 0.0)
        acc_v = tl.dot(p.to(b_dmixed.dtype), b_dmixed, acc_v, input_precision="ieee")
        dp = tl.dot(b_v, b_dmixed.T, input_precision="ieee")
        dscore = (p * (dp - b_delta[None, :])).to(b_q.dtype)
        acc_k = tl.dot(dscore, b_q, acc_k, input_precision="ieee")
    return acc_k, acc_v
