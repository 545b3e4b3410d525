"""Triton kernels and their launchers: one program for each row."""

import torch
import triton
import triton.language as tl
from torch import Tensor


def rms_norm_fwd(x_TH: Tensor, weight_H: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """y, and what each row was multiplied by."""
    x_TH = x_TH.contiguous()
    T, H = x_TH.shape
    y_TH = x_TH.new_empty(T, H)
    scale_T = x_TH.new_empty(T, dtype=torch.float32)
    _fwd_kernel[(T,)](
        x_TH, weight_H, y_TH, scale_T, H, epsilon, BLOCK=triton.next_power_of_2(H), num_warps=8
    )
    return y_TH, scale_T


def rms_norm_bwd(dy_TH: Tensor, x_TH: Tensor, weight_H: Tensor, scale_T: Tensor) -> Tensor:
    dy_TH, x_TH = dy_TH.contiguous(), x_TH.contiguous()
    T, H = x_TH.shape
    dx_TH = x_TH.new_empty(T, H)
    _bwd_kernel[(T,)](
        dy_TH, x_TH, weight_H, scale_T, dx_TH, H, BLOCK=triton.next_power_of_2(H), num_warps=8
    )
    return dx_TH


@triton.jit
def _fwd_kernel(x, weight, y, scale, H, epsilon, BLOCK: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK)
    in_h = h < H
    b_x = tl.load(x + t * H + h, mask=in_h, other=0.0).to(tl.float32)
    b_w = tl.load(weight + h, mask=in_h, other=0.0)
    b_scale = tl.rsqrt(tl.sum(b_x * b_x) / H + epsilon)
    normal = (b_x * b_scale).to(x.dtype.element_ty)
    tl.store(y + t * H + h, (normal * b_w).to(y.dtype.element_ty), mask=in_h)
    tl.store(scale + t, b_scale)


@triton.jit
def _bwd_kernel(dy, x, weight, scale, dx, H, BLOCK: tl.constexpr):
    """With n = x * scale and g = dy * weight: dx = scale * (g - n * mean(g * n))."""
    t = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK)
    in_h = h < H
    b_scale = tl.load(scale + t)
    normal = tl.load(x + t * H + h, mask=in_h, other=0.0).to(tl.float32) * b_scale
    b_dy = tl.load(dy + t * H + h, mask=in_h, other=0.0).to(tl.float32)
    g = b_dy * tl.load(weight + h, mask=in_h, other=0.0).to(tl.float32)
    b_dx = b_scale * (g - normal * (tl.sum(g * normal) / H))
    tl.store(dx + t * H + h, b_dx.to(dx.dtype.element_ty), mask=in_h)
