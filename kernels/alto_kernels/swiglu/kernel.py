"""Triton kernels and their launchers: one program for a block of one row.

Rows come first in the grid: the other dimensions of a grid end at 65,535.
"""

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["swiglu_bwd", "swiglu_fwd"]

_BLOCK = 2048


def swiglu_fwd(gate_TF: Tensor, up_TF: Tensor, y_TF: Tensor) -> None:
    T, F = gate_TF.shape
    _fwd_kernel[(T, triton.cdiv(F, _BLOCK))](
        gate_TF, up_TF, y_TF, F, gate_TF.stride(0), up_TF.stride(0), BLOCK=_BLOCK, num_warps=4
    )


def swiglu_bwd(dy_TF: Tensor, gate_TF: Tensor, up_TF: Tensor, d_T2F: Tensor) -> None:
    """Gradients of gate and up, side by side in one tensor."""
    T, F = gate_TF.shape
    _bwd_kernel[(T, triton.cdiv(F, _BLOCK))](
        dy_TF, gate_TF, up_TF, d_T2F, F, gate_TF.stride(0), up_TF.stride(0),
        BLOCK=_BLOCK, num_warps=4,
    )  # fmt: skip


@triton.jit
def _fwd_kernel(gate, up, y, F, gate_t, up_t, BLOCK: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_f = f < F
    b_gate = tl.load(gate + t * gate_t + f, mask=in_f, other=0.0).to(tl.float32)
    b_up = tl.load(up + t * up_t + f, mask=in_f, other=0.0)
    active = (b_gate * tl.sigmoid(b_gate)).to(y.dtype.element_ty)
    tl.store(y + t * F + f, active * b_up, mask=in_f)


@triton.jit
def _bwd_kernel(dy, gate, up, d, F, gate_t, up_t, BLOCK: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_f = f < F
    b_gate = tl.load(gate + t * gate_t + f, mask=in_f, other=0.0).to(tl.float32)
    b_up = tl.load(up + t * up_t + f, mask=in_f, other=0.0).to(tl.float32)
    b_dy = tl.load(dy + t * F + f, mask=in_f, other=0.0).to(tl.float32)
    s = tl.sigmoid(b_gate)
    dgate = b_dy * b_up * s * (1 + b_gate * (1 - s))
    dup = b_dy * b_gate * s
    tl.store(d + t * 2 * F + f, dgate.to(d.dtype.element_ty), mask=in_f)
    tl.store(d + t * 2 * F + F + f, dup.to(d.dtype.element_ty), mask=in_f)
