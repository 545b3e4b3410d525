"""Triton kernel and its launcher: one program for all heads of one row."""

import triton
import triton.language as tl
from torch import Tensor


def turn(x_TND: Tensor, cos_TD: Tensor, sin_TD: Tensor, *, back: bool) -> Tensor:
    T, N, D = x_TND.shape
    if x_TND.stride(2) != 1:
        x_TND = x_TND.contiguous()
    y_TND = x_TND.new_empty(T, N, D)
    _turn_kernel[(T,)](
        x_TND, cos_TD, sin_TD, y_TND, N, D // 2, x_TND.stride(0), x_TND.stride(1),
        cos_TD.stride(0), sin_TD.stride(0), BACK=back, BLOCK_N=triton.next_power_of_2(N),
        BLOCK_D=triton.next_power_of_2(D // 2), num_warps=4,
    )  # fmt: skip
    return y_TND


@triton.jit
def _turn_kernel(
    x, cos, sin, y, N, half, x_t, x_n, cos_t, sin_t,
    BACK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK_N)[:, None]
    d = tl.arange(0, BLOCK_D)[None, :]
    mask = (n < N) & (d < half)
    b_cos = tl.load(cos + t * cos_t + d, mask=d < half, other=0.0).to(tl.float32)
    b_sin = tl.load(sin + t * sin_t + d, mask=d < half, other=0.0).to(tl.float32)
    if BACK:
        b_sin = -b_sin
    left = tl.load(x + t * x_t + n * x_n + d, mask=mask, other=0.0).to(tl.float32)
    right = tl.load(x + t * x_t + n * x_n + half + d, mask=mask, other=0.0).to(tl.float32)
    out = y + (t * N + n) * 2 * half + d
    tl.store(out, (left * b_cos - right * b_sin).to(y.dtype.element_ty), mask=mask)
    tl.store(out + half, (right * b_cos + left * b_sin).to(y.dtype.element_ty), mask=mask)
