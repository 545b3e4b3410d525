"""Which tile is whose turn in the Hopper product, and what of W and B is fetched for it."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma

__all__ = ["OUTSIDE", "fetch_bank", "fetch_weight", "members_of", "tile_of"]

OUTSIDE = gl.constexpr(1 << 30)  # a row of no bank: zeros, and nothing is read


@gluon.jit
def tile_of(tile, tiles_m, tiles_n, GROUP_M: gl.constexpr, ALONG: gl.constexpr):
    """Row and column of a tile: GROUP_M rows share their columns of W while those are cached. And
    whether s is made along with it: then the first tile of the first programs is one of the first
    columns, of each row one, and the others have the columns behind those."""
    programs = gl.num_programs(0)
    makes = (tile < programs) & (tile >= programs - tiles_m)
    left_out = 0
    columns = tiles_n
    if ALONG:
        left_out = gl.where(tile < programs, 0, tiles_m)
        columns = gl.maximum(tiles_n - 1, 1)
    inside = tile - left_out
    group = inside // (GROUP_M * columns)
    rows = gl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    inside = inside % (GROUP_M * columns)
    m = group * GROUP_M + inside % rows
    n = inside // rows
    if ALONG:
        m = gl.where(makes, programs - 1 - tile, m)
        n = gl.where(makes, 0, n + 1)
    return m, n, makes


@gluon.jit
def members_of(column, ends, members, HAS_ENDS: gl.constexpr):
    """First and end member that add to the columns from `column`."""
    first = 0
    end = members
    if HAS_ENDS:
        for member in range(members - 1):
            first += (column >= gl.load(ends + member)).to(gl.int32)
        end = first + 1
    return first, end


@gluon.jit
def fetch_weight(
    w_desc, buffer, full, k, column, N,
    W_IS_NK: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, GATED: gl.constexpr,
):  # fmt: skip
    """BLOCK_K inputs of a tile's columns."""
    if GATED:
        halves = buffer._reinterpret(w_desc.dtype, [2, BLOCK_N // 2, BLOCK_K], w_desc.layout)
        for i in gl.static_range(2):
            tma.async_copy_global_to_shared(
                w_desc, [column + i * (N // 2), k], full, halves.index(i)
            )
    elif W_IS_NK:
        tma.async_copy_global_to_shared(w_desc, [column, k], full, buffer)
    else:
        tma.async_copy_global_to_shared(w_desc, [k, column], full, buffer)


@gluon.jit
def fetch_bank(
    bank_desc, buffer, full, rank_row, column, member, N,
    STEP: gl.constexpr, BLOCK_N: gl.constexpr, GATED: gl.constexpr,
):  # fmt: skip
    """STEP ranks of B; of a gated product zeros for the half that is the other member's."""
    dtype: gl.constexpr = bank_desc.dtype
    if GATED:
        halves = buffer._reinterpret(dtype, [2, STEP, BLOCK_N // 2], bank_desc.layout)
        for i in gl.static_range(2):
            half_row = rank_row
            if i != member:
                half_row = OUTSIDE
            tma.async_copy_global_to_shared(
                bank_desc, [half_row, column + i * (N // 2)], full, halves.index(i)
            )
    else:
        right = buffer._reinterpret(dtype, [STEP, BLOCK_N], bank_desc.layout)
        tma.async_copy_global_to_shared(bank_desc, [rank_row, column], full, right)
