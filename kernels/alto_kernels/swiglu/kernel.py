"""Triton kernels and their launchers. No autograd here.

Shapes: T rows, F columns; gate and up may be columns of a wider tensor.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["swiglu_bwd", "swiglu_fwd"]

_BLOCK = 1024


def swiglu_fwd(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    (T, F) = gate_TF.shape
    y_TF = torch.empty(T, F, dtype=gate_TF.dtype, device=gate_TF.device)
    if T:
        _fwd_kernel[(T, triton.cdiv(F, _BLOCK))](
            gate_TF, up_TF, y_TF, F, gate_TF.stride(0), up_TF.stride(0), BLOCK=_BLOCK
        )
    return y_TF


def swiglu_bwd(dy_TF: Tensor, gate_TF: Tensor, up_TF: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up, the two halves of one tensor's columns."""
    (T, F) = gate_TF.shape
    both = torch.empty(T, 2 * F, dtype=gate_TF.dtype, device=gate_TF.device)
    if T:
        _bwd_kernel[(T, triton.cdiv(F, _BLOCK))](
            dy_TF, gate_TF, up_TF, both, F,
            dy_TF.stride(0), gate_TF.stride(0), up_TF.stride(0), BLOCK=_BLOCK,
        )  # fmt: skip
    return both[:, :F], both[:, F:]


@triton.jit
def _fwd_kernel(gate, up, y, F, gate_t, up_t, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < F
    b_gate = tl.load(gate + row * gate_t + column, mask=inside, other=0.0).to(tl.float32)
    b_up = tl.load(up + row * up_t + column, mask=inside, other=0.0).to(tl.float32)
    b_y = b_gate * tl.sigmoid(b_gate) * b_up
    tl.store(y + row * F + column, b_y.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _bwd_kernel(dy, gate, up, both, F, dy_t, gate_t, up_t, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < F
    b_dy = tl.load(dy + row * dy_t + column, mask=inside, other=0.0).to(tl.float32)
    b_gate = tl.load(gate + row * gate_t + column, mask=inside, other=0.0).to(tl.float32)
    b_up = tl.load(up + row * up_t + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(b_gate)
    silu = b_gate * sigmoid
    b_dgate = b_dy * b_up * (sigmoid + silu * (1 - sigmoid))
    out = both + row * 2 * F + column
    tl.store(out, b_dgate.to(both.dtype.element_ty), mask=inside)
    tl.store(out + F, (b_dy * silu).to(both.dtype.element_ty), mask=inside)
