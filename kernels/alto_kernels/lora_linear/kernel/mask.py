"""The dropout mask of `dropout.py`, computed where it is needed."""

import triton
import triton.language as tl

GOLDEN = tl.constexpr(0x9E3779B9)


@triton.jit
def mix(x):
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def keep(t, segment, number, column, BLOCK: tl.constexpr):
    """(rows, BLOCK) bool for rows `t` of the batch and columns from `column`, an even number.

    `segment` points at the segment's row of the table.
    """
    base = tl.load(segment + 6).to(tl.uint32, bitcast=True) ^ number.to(tl.uint32)
    key = mix(mix(base) + GOLDEN)
    token = (t - tl.load(segment)).to(tl.uint32) + tl.load(segment + 7).to(tl.uint32, bitcast=True)
    row = mix(token ^ key)
    pair = (column // 2 + tl.arange(0, BLOCK // 2)).to(tl.uint32) * GOLDEN
    hashes = mix(row[:, None] + pair[None, :])
    bits = tl.interleave(hashes & 0xFFFF, hashes >> 16)
    return bits >= tl.load(segment + 5).to(tl.uint32)
