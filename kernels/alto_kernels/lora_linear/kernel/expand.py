"""y = s B alone, for what the persistent kernel does not do: a product of cuBLAS is added to it."""

import triton
import triton.language as tl
from torch import Tensor

from alto_kernels.lora_linear.kernel.mask import keep
from alto_kernels.lora_linear.tables import TILE_ROWS, Tables

_BLOCK_N = 128


def expand(
    s_PJ: Tensor,
    bank_RC: Tensor,
    bias_N: Tensor | None,
    spans: Tensor,
    tables: Tables,
    num_columns: int,
    *,
    shared: bool,
    number: int = -1,
    out: Tensor | None = None,
) -> Tensor:
    """(T, `num_columns`): bias, and for each member its block of s times its rows of the bank.

    `spans` are those of `shrink`; with `shared` all members add to the same columns, and `number`
    of the first linear asks for its dropout on what a member adds.
    """
    members = spans.shape[0]
    dropout = number >= 0 and tables.has_dropout
    y_TN = s_PJ.new_empty(tables.num_rows, num_columns) if out is None else out
    grid = (tables.num_tiles, triton.cdiv(num_columns, _BLOCK_N))
    _expand_kernel[grid](
        s_PJ, bank_RC, bias_N, y_TN, spans, tables.tile_pairs, tables.pairs, tables.segments,
        tables.factors, tables.num_rows, num_columns, number, members, tables.rank_width,
        s_PJ.stride(0), bank_RC.stride(0), y_TN.stride(0),
        STEP=tables.rank_step, SHARED=shared, DROPOUT=dropout, HAS_BIAS=bias_N is not None,
        BLOCK_M=TILE_ROWS, BLOCK_N=_BLOCK_N, num_warps=8, num_stages=2,
    )  # fmt: skip
    return y_TN


@triton.jit(do_not_specialize=["T", "number"])
def _expand_kernel(
    s, bank, bias, y, spans, tile_pairs, pairs, segments, factors, T, N, number, members, width,
    s_p, bank_r, y_t,
    STEP: tl.constexpr, SHARED: tl.constexpr, DROPOUT: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One tile of y."""
    m, column = tl.program_id(0), tl.program_id(1) * BLOCK_N
    t = m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = column + tl.arange(0, BLOCK_N)
    in_n = n < N
    step = tl.arange(0, STEP)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for pair in range(tl.load(tile_pairs + m), tl.load(tile_pairs + m + 1)):
        index = tl.load(pairs + 3 * pair)
        first_rank, rank = tl.load(pairs + 3 * pair + 1), tl.load(pairs + 3 * pair + 2)
        p = pair * BLOCK_M + tl.arange(0, BLOCK_M)
        for member in range(members):
            first_column = tl.multiple_of(tl.load(spans + 3 * member), 8)
            columns = tl.multiple_of(tl.load(spans + 3 * member + 2), 8)
            # Columns of y in the member, and of the member in the bank.
            c = n - first_column
            in_c = in_n & (c >= 0) & (c < columns)
            bank_column = tl.multiple_of(tl.load(spans + 3 * member + 1), 8)
            acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
            meets = SHARED | ((column < first_column + columns) & (column + BLOCK_N > first_column))
            for r0 in range(0, tl.where(meets, rank, 0), STEP):
                r = r0 + step
                s_pr = s + p.to(tl.int64)[:, None] * s_p + (member * width + r)[None, :]
                b_rn = bank + (first_rank + r).to(tl.int64)[:, None] * bank_r
                b_rn += (bank_column + c)[None, :]
                b_s = tl.load(s_pr)
                b_b = tl.load(b_rn, mask=(r < rank)[:, None] & in_c[None, :], other=0.0)
                acc = tl.dot(b_s, b_b, acc, input_precision="ieee")
            if DROPOUT:
                kept = keep(t, segments + 8 * index, number + member, column, BLOCK_N)
                acc = tl.where(kept, acc, 0.0) * tl.load(factors + 2 * index + 1)
            total += acc
    if HAS_BIAS:
        total += tl.load(bias + n, mask=in_n, other=0.0).to(tl.float32)[None, :]
    y_tn = y + t.to(tl.int64)[:, None] * y_t + n[None, :]
    tl.store(y_tn, total.to(y.dtype.element_ty), mask=(t < T)[:, None] & in_n[None, :])
