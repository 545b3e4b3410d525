"""Triton kernels and their launchers. No autograd here. One program for each row: all its heads."""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["head_norm_bwd", "head_norm_fwd"]


def head_norm_fwd(
    q_TD: Tensor, k_TD: Tensor, q_weight_d: Tensor, k_weight_d: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Two column ranges of one new tensor."""
    widths = [q_TD.shape[1], k_TD.shape[1]]
    out = torch.empty(len(q_TD), sum(widths), dtype=q_TD.dtype, device=q_TD.device)
    q_out_TD, k_out_TD = out.split(widths, dim=1)
    if len(q_TD):
        _fwd_kernel[(len(q_TD),)](
            q_TD, k_TD, q_weight_d, k_weight_d, q_out_TD, k_out_TD,
            q_TD.stride(0), k_TD.stride(0), out.stride(0), epsilon,
            **_sizes(q_TD, k_TD, q_weight_d),
        )  # fmt: skip
    return q_out_TD, k_out_TD


def head_norm_bwd(
    dq_TD: Tensor,
    dk_TD: Tensor,
    q_TD: Tensor,
    k_TD: Tensor,
    q_weight_d: Tensor,
    k_weight_d: Tensor,
    epsilon: float,
) -> None:
    """Gradients of what was normed, in place of those of the norms."""
    if len(q_TD):
        _bwd_kernel[(len(q_TD),)](
            dq_TD, dk_TD, q_TD, k_TD, q_weight_d, k_weight_d,
            dq_TD.stride(0), dk_TD.stride(0), q_TD.stride(0), k_TD.stride(0), epsilon,
            **_sizes(q_TD, k_TD, q_weight_d),
        )  # fmt: skip


def _sizes(q_TD: Tensor, k_TD: Tensor, weight_d: Tensor) -> dict[str, int]:
    (d,) = weight_d.shape
    heads = [part.shape[1] // d for part in (q_TD, k_TD)]
    block = triton.next_power_of_2(heads[0]) * triton.next_power_of_2(d)
    return {
        "SIZE": d,
        "Q_HEADS": heads[0],
        "K_HEADS": heads[1],
        "num_warps": 4 if block <= 4096 else 8,
    }


@triton.jit
def _fwd_kernel(
    q, k, q_weight, k_weight, q_out, k_out, q_t, k_t, out_t, epsilon,
    SIZE: tl.constexpr, Q_HEADS: tl.constexpr, K_HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    _norm(q + row * q_t, q_weight, q_out + row * out_t, epsilon, Q_HEADS, SIZE)
    _norm(k + row * k_t, k_weight, k_out + row * out_t, epsilon, K_HEADS, SIZE)


@triton.jit
def _bwd_kernel(
    dq, dk, q, k, q_weight, k_weight, dq_t, dk_t, q_t, k_t, epsilon,
    SIZE: tl.constexpr, Q_HEADS: tl.constexpr, K_HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    _norm_back(dq + row * dq_t, q + row * q_t, q_weight, epsilon, Q_HEADS, SIZE)
    _norm_back(dk + row * dk_t, k + row * k_t, k_weight, epsilon, K_HEADS, SIZE)


@triton.jit
def _norm(x, weight, to, epsilon, HEADS: tl.constexpr, SIZE: tl.constexpr):
    column, place, inside = _places(HEADS, SIZE)
    wide = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    b_scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 1) / SIZE + epsilon)
    b_weight = tl.load(weight + column, mask=column < SIZE, other=0.0).to(tl.float32)
    normed = wide * b_scale[:, None] * b_weight[None, :]
    tl.store(to + place, normed.to(to.dtype.element_ty), mask=inside)


@triton.jit
def _norm_back(dx, x, weight, epsilon, HEADS: tl.constexpr, SIZE: tl.constexpr):
    """dx = scale * (w dx - n * mean(n * w dx)), n a normed head."""
    column, place, inside = _places(HEADS, SIZE)
    wide = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    b_scale = (1.0 / tl.sqrt(tl.sum(wide * wide, 1) / SIZE + epsilon))[:, None]
    b_dx = tl.load(dx + place, mask=inside, other=0.0).to(tl.float32)
    b_dx *= tl.load(weight + column, mask=column < SIZE, other=0.0).to(tl.float32)[None, :]
    normed = wide * b_scale
    b_dx = b_scale * (b_dx - normed * (tl.sum(normed * b_dx, 1) / SIZE)[:, None])
    tl.store(dx + place, b_dx.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def _places(HEADS: tl.constexpr, SIZE: tl.constexpr):
    """Columns of a head, those of all heads of a row, and which of them there are."""
    head = tl.arange(0, triton.next_power_of_2(HEADS))[:, None]
    column = tl.arange(0, triton.next_power_of_2(SIZE))
    inside = (head < HEADS) & (column[None, :] < SIZE)
    return column, head * SIZE + column[None, :], inside
