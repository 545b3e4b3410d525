"""The gradients of gate and up, and in the same pass what their adapters want of them first:
ds = scale * d B^T.

A program owns BLOCK_T rows of a pair's block and walks over all columns, so ds is whole. Rows that
meet no adapter have programs of their own, by tiles.
"""

import triton
import triton.language as tl
from torch import Tensor

from alto_kernels.lora_linear.tables import TILE_ROWS, Tables
from alto_kernels.swiglu.kernel import swiglu_gradients

__all__ = ["MOST_RANKS", "gated_ds"]

MOST_RANKS = 16  # every program reads B of its segment
_BLOCK_T, _BLOCK_C, _WARPS, _STAGES = 32, 128, 4, 3


def gated_ds(
    dy_TF: Tensor, both_TO: Tensor, dboth_TO: Tensor, s_PJ: Tensor, bank_RO: Tensor, tables: Tables
) -> Tensor:
    """ds (P, 2 * rank width), of the shape of s; the gradients of gate and up to `dboth_TO`."""
    (T, F), width = dy_TF.shape, tables.rank_width
    assert width <= MOST_RANKS
    ds_PJ = s_PJ.new_empty(s_PJ.shape)
    blocks = tables.num_pairs + tables.num_tiles
    _gated_ds_kernel[(blocks * (TILE_ROWS // _BLOCK_T),)](
        dy_TF, both_TO, dboth_TO, bank_RO, ds_PJ, tables.tile_pairs, tables.pairs, tables.segments,
        tables.factors, T, F, width, tables.num_pairs, dy_TF.stride(0), both_TO.stride(0),
        dboth_TO.stride(0), bank_RO.stride(0), ds_PJ.stride(0),
        TILE=TILE_ROWS, STEP=tables.rank_step, BLOCK_T=_BLOCK_T, BLOCK_C=_BLOCK_C,
        BLOCK_J=MOST_RANKS, num_warps=_WARPS, num_stages=_STAGES,
    )  # fmt: skip
    return ds_PJ


# What differs from batch to batch: else each kind of number there would compile it anew.
@triton.jit(do_not_specialize=["T", "num_pairs"])
def _gated_ds_kernel(
    dy, both, dboth, bank, ds, tile_pairs, pairs, segments, factors, T, F, width, num_pairs,
    dy_t, both_t, dboth_t, bank_r, ds_p,
    TILE: tl.constexpr, STEP: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_J: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0) // (TILE // BLOCK_T)
    row = tl.program_id(0) % (TILE // BLOCK_T) * BLOCK_T + tl.arange(0, BLOCK_T)
    if block < num_pairs:
        _rows_of_pair(
            dy, both, dboth, bank, ds, pairs + 3 * block, segments, factors, block * TILE + row,
            F, width, dy_t, both_t, dboth_t, bank_r, ds_p, STEP, BLOCK_C, BLOCK_J,
        )  # fmt: skip
    else:
        tile = block - num_pairs
        first_pair, end_pair = tl.load(tile_pairs + tile), tl.load(tile_pairs + tile + 1)
        _rows_alone(
            dy, both, dboth, pairs, segments, tile * TILE + row, first_pair, end_pair, T, F,
            dy_t, both_t, dboth_t, BLOCK_C,
        )  # fmt: skip


@triton.jit
def _rows_of_pair(
    dy, both, dboth, bank, ds, pair, segments, factors, p, F, width,
    dy_t, both_t, dboth_t, bank_r, ds_p,
    STEP: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """Rows p of a pair's block: zero in ds where its segment has none."""
    index = tl.load(pair)
    segment = segments + 8 * index
    t = p - tl.load(segment + 4)
    in_t = (t >= tl.load(segment)) & (t < tl.load(segment + 1))
    rank, j = tl.load(pair + 2), tl.arange(0, BLOCK_J)
    bank_j = bank + (tl.load(pair + 1) + j).to(tl.int64) * bank_r
    in_j, in_r = j < tl.cdiv(rank, STEP) * STEP, j < rank
    gate_acc = tl.zeros([p.shape[0], BLOCK_J], tl.float32)
    up_acc = tl.zeros([p.shape[0], BLOCK_J], tl.float32)
    for c0 in range(0, _columns(in_t, F), BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        in_b, bank_cj = (c < F)[:, None] & in_r[None, :], bank_j[None, :] + c[:, None]
        gate_b = tl.load(bank_cj, mask=in_b, other=0.0)
        up_b = tl.load(bank_cj + F, mask=in_b, other=0.0)
        dgate, dup = _gradients(dy, both, dboth, t, in_t, c, F, dy_t, both_t, dboth_t)
        gate_acc = tl.dot(dgate, gate_b, gate_acc, input_precision="ieee")
        up_acc = tl.dot(dup, up_b, up_acc, input_precision="ieee")
    factor = tl.load(factors + 2 * index)
    ds_pj, mask = ds + p.to(tl.int64)[:, None] * ds_p + j[None, :], in_j[None, :]
    tl.store(ds_pj, (gate_acc * factor).to(ds.dtype.element_ty), mask=mask)
    tl.store(ds_pj + width, (up_acc * factor).to(ds.dtype.element_ty), mask=mask)


@triton.jit
def _rows_alone(
    dy, both, dboth, pairs, segments, t, first_pair, end_pair, T, F, dy_t, both_t, dboth_t,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Rows t of a tile, where they are in the segment of none of its pairs."""
    in_t = t < T
    for pair in range(first_pair, end_pair):
        segment = segments + 8 * tl.load(pairs + 3 * pair)
        in_t = in_t & ((t < tl.load(segment)) | (t >= tl.load(segment + 1)))
    for c0 in range(0, _columns(in_t, F), BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        _gradients(dy, both, dboth, t, in_t, c, F, dy_t, both_t, dboth_t)


@triton.jit
def _columns(in_t, F):
    """None to walk over where there is no row."""
    return tl.where(tl.max(in_t.to(tl.int32), 0) > 0, F, 0)


@triton.jit
def _gradients(dy, both, dboth, t, in_t, c, F, dy_t, both_t, dboth_t):
    """Those of gate and up, as they are stored; zero in rows and columns that are not there."""
    mask = in_t[:, None] & (c < F)[None, :]
    row = t.to(tl.int64)[:, None]
    gate_tc = both + row * both_t + c[None, :]
    b_gate = tl.load(gate_tc, mask=mask, other=0.0).to(tl.float32)
    b_up = tl.load(gate_tc + F, mask=mask, other=0.0).to(tl.float32)
    b_dy = tl.load(dy + row * dy_t + c[None, :], mask=mask, other=0.0).to(tl.float32)
    dgate, dup = swiglu_gradients(b_dy, b_gate, b_up)
    dgate, dup = dgate.to(dboth.dtype.element_ty), dup.to(dboth.dtype.element_ty)
    d_tc = dboth + row * dboth_t + c[None, :]
    tl.store(d_tc, dgate, mask=mask)
    tl.store(d_tc + F, dup, mask=mask)
    return dgate, dup
