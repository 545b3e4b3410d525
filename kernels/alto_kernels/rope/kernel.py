"""Triton kernels and their launchers. No autograd here. One program for a row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["rotate", "turn"]


def rotate(
    parts: tuple[Tensor, Tensor, Tensor], cos_Td: Tensor, sin_Td: Tensor, *, backwards: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys rotated, values copied: three column ranges of one new tensor."""
    (T, d) = cos_Td.shape
    widths = [part.shape[1] for part in parts]
    out = torch.empty(T, sum(widths), dtype=parts[0].dtype, device=parts[0].device)
    halves = [width // 2 for width in widths]
    if T:
        _rotate_kernel[(T,)](
            *parts, out, cos_Td, sin_Td, *halves,
            out.stride(0), *(part.stride(0) for part in parts),
            SIGN=-1.0 if backwards else 1.0, HALF=d,
            BLOCK_Q=triton.next_power_of_2(halves[0]), BLOCK_K=triton.next_power_of_2(halves[1]),
            BLOCK_V=triton.next_power_of_2(widths[2]),
            num_warps=4,
        )  # fmt: skip
    q_TD, k_TD, v_TD = out.split(widths, dim=1)
    return q_TD, k_TD, v_TD


def turn(x_TD: Tensor, cos_Td: Tensor, sin_Td: Tensor) -> None:
    """Heads rotated where they are."""
    (T, d), half = cos_Td.shape, x_TD.shape[1] // 2
    if T:
        _turn_kernel[(T,)](
            x_TD, cos_Td, sin_Td, half, x_TD.stride(0),
            HALF=d, BLOCK=triton.next_power_of_2(half), num_warps=4,
        )  # fmt: skip


@triton.jit
def _turn_kernel(x, cos, sin, width, x_t, HALF: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    x += row * x_t
    _turn(x, x, cos + row * HALF, sin + row * HALF, width, 1.0, HALF, BLOCK)


@triton.jit
def _rotate_kernel(
    q, k, v, out, cos, sin, q_width, k_width, v_width, out_t, q_t, k_t, v_t,
    SIGN: tl.constexpr, HALF: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):  # fmt: skip
    """One row; widths are half of the columns."""
    row = tl.program_id(0).to(tl.int64)
    cos += row * HALF
    sin += row * HALF
    out += row * out_t
    _turn(q + row * q_t, out, cos, sin, q_width, SIGN, HALF, BLOCK_Q)
    _turn(k + row * k_t, out + 2 * q_width, cos, sin, k_width, SIGN, HALF, BLOCK_K)
    column = tl.arange(0, BLOCK_V)
    inside = column < 2 * v_width
    b_v = tl.load(v + row * v_t + column, mask=inside, other=0.0)
    tl.store(out + 2 * (q_width + k_width) + column, b_v, mask=inside)


@triton.jit
def _turn(
    x, to, cos, sin, width, SIGN: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """All heads of one row: HALF columns and the HALF behind them are turned together."""
    pair = tl.arange(0, BLOCK)
    inside = pair < width
    angle = pair % HALF
    first = pair // HALF * (2 * HALF) + angle
    b_a = tl.load(x + first, mask=inside, other=0.0).to(tl.float32)
    b_b = tl.load(x + first + HALF, mask=inside, other=0.0).to(tl.float32)
    b_cos = tl.load(cos + angle, mask=inside, other=1.0)
    b_sin = tl.load(sin + angle, mask=inside, other=0.0) * SIGN
    tl.store(to + first, (b_a * b_cos - b_b * b_sin).to(to.dtype.element_ty), mask=inside)
    tl.store(to + first + HALF, (b_b * b_cos + b_a * b_sin).to(to.dtype.element_ty), mask=inside)
