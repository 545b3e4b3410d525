"""What the Hopper product makes of a tile beside its numbers where gate and up are near.

Forward, half of a tile is gate and half up, and silu(gate) * up is stored beside them. Backward, a
tile is the gradient of that, and the gradients of gate and up are stored in its place: the tiles
of gate and up pass through the ring of operands as four more steps.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from alto_kernels.lora_linear.kernel.hopper_flags import thread_barrier

__all__ = ["fetch_gates", "store", "store_gradients"]


@gluon.jit
def store(
    y_desc, gated_desc, stored, left, right, row, column, right_at, GATED: gl.constexpr
):  # fmt: skip
    """The halves of a tile, and what they make together while those are on their way."""
    tma.store_wait(pendings=0)  # of the tile before
    stored.index(0).store(left)
    stored.index(1).store(right)
    fence_async_shared()
    tma.async_copy_shared_to_global(y_desc, [row, column], stored.index(0))
    tma.async_copy_shared_to_global(y_desc, [row, column + right_at], stored.index(1))
    if GATED:
        gate, up = left.to(gl.float32), right.to(gl.float32)
        active = (gate / (1.0 + gl.exp(-gate))).to(left.dtype).to(gl.float32)
        made = (active * up).to(left.dtype)
        tma.store_wait(pendings=0)
        stored.index(0).store(made)
        fence_async_shared()
        tma.async_copy_shared_to_global(gated_desc, [row, column], stored.index(0))


@gluon.jit
def fetch_gates(
    gates_desc, w_ring, full, empty, turn, row, column, N,
    BLOCK_M: gl.constexpr, HALF: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The fetching warp's part: gate and up of the left half of a tile, then of the right one.
    Returns the turn behind them."""
    for step in gl.static_range(4):
        at = turn % STAGES
        buffer = w_ring.index(at)._reinterpret(gates_desc.dtype, [BLOCK_M, HALF], gates_desc.layout)
        mbarrier.wait(empty.index(at), ((turn // STAGES) & 1) ^ 1)
        mbarrier.expect(full.index(at), BLOCK_M * HALF * 2)
        tma.async_copy_global_to_shared(
            gates_desc, [row, column + step // 2 * HALF + step % 2 * N], full.index(at), buffer
        )
        turn += 1
    return turn


@gluon.jit
def _next_gates(
    gates_desc, w_ring, full, empty, turn,
    BLOCK_M: gl.constexpr, HALF: gl.constexpr, STAGES: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    at = turn % STAGES
    buffer = w_ring.index(at)._reinterpret(gates_desc.dtype, [BLOCK_M, HALF], gates_desc.layout)
    mbarrier.wait(full.index(at), (turn // STAGES) & 1)
    values = buffer.load(layout).to(gl.float32)
    thread_barrier()
    mbarrier.arrive(empty.index(at))
    return values


@gluon.jit
def store_gradients(
    y_desc, gates_desc, w_ring, stored, full, empty, turn, left, right, row, column, N,
    BLOCK_M: gl.constexpr, HALF: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The multiplying warps' part, from both halves of a tile in fp32. Returns the turn behind."""
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[gl.num_warps(), 1], instr_shape=[16, HALF, 16]
    )
    dtype: gl.constexpr = gates_desc.dtype
    for half in gl.static_range(2):
        gate = _next_gates(gates_desc, w_ring, full, empty, turn, BLOCK_M, HALF, STAGES, layout)
        up = _next_gates(gates_desc, w_ring, full, empty, turn + 1, BLOCK_M, HALF, STAGES, layout)
        turn += 2
        d = gl.convert_layout(left if half == 0 else right, layout)
        share = 1.0 / (1.0 + gl.exp(-gate))
        dgate = (d * up * share * (1.0 + gate * (1.0 - share))).to(dtype)
        dup = (d * gate * share).to(dtype)
        tma.store_wait(pendings=0)  # of what was stored before
        stored.index(0).store(dgate)
        stored.index(1).store(dup)
        fence_async_shared()
        at = column + half * HALF
        tma.async_copy_shared_to_global(y_desc, [row, at], stored.index(0))
        tma.async_copy_shared_to_global(y_desc, [row, at + N], stored.index(1))
    return turn
