"""Triton kernels and their launchers. No autograd here. One program for a head of a row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["rotate"]


def rotate(
    parts: tuple[Tensor, Tensor, Tensor], cos_Td: Tensor, sin_Td: Tensor, *, backwards: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys rotated, values copied: three column ranges of one new tensor."""
    (T, d) = cos_Td.shape
    widths = [part.shape[1] for part in parts]
    out = torch.empty(T, sum(widths), dtype=parts[0].dtype, device=parts[0].device)
    heads = [width // (2 * d) for width in widths]
    if T:
        _rotate_kernel[(T, sum(heads))](
            *parts, out, cos_Td, sin_Td, *heads[:2], d,
            out.stride(0), *(part.stride(0) for part in parts),
            SIGN=-1.0 if backwards else 1.0, BLOCK=triton.next_power_of_2(d), num_warps=1,
        )  # fmt: skip
    q_TD, k_TD, v_TD = out.split(widths, dim=1)
    return q_TD, k_TD, v_TD


@triton.jit
def _rotate_kernel(
    q, k, v, out, cos, sin, q_heads, k_heads, d, out_t, q_t, k_t, v_t,
    SIGN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    column = tl.arange(0, BLOCK)
    inside = column < d
    if head < q_heads:
        source = q + row * q_t + head * 2 * d + column
    elif head < q_heads + k_heads:
        source = k + row * k_t + (head - q_heads) * 2 * d + column
    else:
        source = v + row * v_t + (head - q_heads - k_heads) * 2 * d + column
    b_a = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    b_b = tl.load(source + d, mask=inside, other=0.0).to(tl.float32)
    turns = head < q_heads + k_heads
    b_cos = tl.load(cos + row * d + column, mask=inside & turns, other=1.0)
    b_sin = tl.load(sin + row * d + column, mask=inside & turns, other=0.0) * SIGN
    to = out + row * out_t + head * 2 * d + column
    tl.store(to, (b_a * b_cos - b_b * b_sin).to(out.dtype.element_ty), mask=inside)
    tl.store(to + d, (b_b * b_cos + b_a * b_sin).to(out.dtype.element_ty), mask=inside)
