"""What one multiprocessor tells another inside of a launch: a flag for each item that is written.

Items are written by ordinary stores and read by the unit that copies tiles, which need a fence
between them beside the release and the acquire.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

__all__ = ["publish", "thread_barrier", "wait_for", "wait_for_launches"]

# Of the warps of one partition; renamed in Triton 3.7.
thread_barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier


@gluon.jit
def wait_for_launches():
    """Wait for what was launched before, where this launch may begin ahead of its end."""
    gl.inline_asm_elementwise(
        "griddepcontrol.wait; mov.u32 $0, $1;",
        "=r,r",
        [gl.program_id(0)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )


@gluon.jit
def publish(flag):
    """Tell that what this partition has stored is there to be read."""
    thread_barrier()
    gl.inline_asm_elementwise(
        "fence.proxy.async; st.release.gpu.global.b32 [$1], 1; mov.u32 $0, 0;",
        "=r,l",
        [flag.to(gl.int64)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )


@gluon.jit
def wait_for(flags, first, end):
    """Wait for the flags from `first` to `end`."""
    lanes: gl.constexpr = 32 * gl.num_warps()
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    lane = gl.arange(0, lanes, layout=layout)
    for at in range(first, end, lanes):
        flag = (flags + gl.minimum(at + lane, end - 1)).to(gl.int64)
        missing = 1
        while missing > 0:
            there = gl.inline_asm_elementwise(
                "ld.acquire.gpu.global.b32 $0, [$1];",
                "=r,l",
                [flag],
                dtype=gl.int32,
                is_pure=False,
                pack=1,
            )
            missing = gl.max(1 - there, axis=0)
    gl.inline_asm_elementwise(
        "fence.proxy.async; mov.u32 $0, $1;", "=r,r", [first], dtype=gl.int32, is_pure=False, pack=1
    )
