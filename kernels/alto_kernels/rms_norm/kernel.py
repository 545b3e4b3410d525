"""Triton kernels and their launchers. No autograd here. One program for each row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["add_rms_norm_bwd", "add_rms_norm_fwd"]


def add_rms_norm_fwd(
    h_TH: Tensor, delta_TH: Tensor | None, weight_H: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The new stream (h itself where nothing is added), its norm, and 1 / rms of each row, fp32."""
    (T, H) = h_TH.shape
    x_TH = torch.empty_like(h_TH)
    new_TH = h_TH if delta_TH is None else torch.empty_like(h_TH)
    scale_T = torch.empty(T, dtype=torch.float32, device=h_TH.device)
    if T:
        _fwd_kernel[(T,)](
            h_TH, delta_TH, weight_H, new_TH, x_TH, scale_T, H, epsilon,
            ADDS=delta_TH is not None, BLOCK=triton.next_power_of_2(H), num_warps=_warps(H),
        )  # fmt: skip
    return new_TH, x_TH, scale_T


def add_rms_norm_bwd(
    dnew_TH: Tensor | None, dx_TH: Tensor, new_TH: Tensor, scale_T: Tensor, weight_H: Tensor
) -> Tensor:
    """Gradient of h, which is that of delta too."""
    (T, H) = new_TH.shape
    dh_TH = torch.empty_like(new_TH)
    if T:
        _bwd_kernel[(T,)](
            dnew_TH, dx_TH, new_TH, scale_T, weight_H, dh_TH, H,
            ADDS=dnew_TH is not None, BLOCK=triton.next_power_of_2(H), num_warps=_warps(H),
        )  # fmt: skip
    return dh_TH


def _warps(hidden: int) -> int:
    return 4 if hidden <= 2048 else 8


@triton.jit
def _fwd_kernel(
    h, delta, weight, new, x, scale, H, epsilon, ADDS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < H
    b_h = tl.load(h + row * H + column, mask=inside, other=0.0)
    if ADDS:
        b_h += tl.load(delta + row * H + column, mask=inside, other=0.0)
        tl.store(new + row * H + column, b_h, mask=inside)
    wide = b_h.to(tl.float32)
    b_scale = 1.0 / tl.sqrt(tl.sum(wide * wide) / H + epsilon)
    b_weight = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + row * H + column, (wide * b_scale * b_weight).to(x.dtype.element_ty), mask=inside)
    tl.store(scale + row, b_scale)


@triton.jit
def _bwd_kernel(dnew, dx, new, scale, weight, dh, H, ADDS: tl.constexpr, BLOCK: tl.constexpr):
    """dh = dnew + scale * (w dx - n * mean(n * w dx)), n the normed row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < H
    b_scale = tl.load(scale + row)
    normed = tl.load(new + row * H + column, mask=inside, other=0.0).to(tl.float32) * b_scale
    b_dx = tl.load(dx + row * H + column, mask=inside, other=0.0).to(tl.float32)
    b_dx *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    b_dh = b_scale * (b_dx - normed * (tl.sum(normed * b_dx) / H))
    if ADDS:
        b_dh += tl.load(dnew + row * H + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(dh + row * H + column, b_dh.to(dh.dtype.element_ty), mask=inside)
