"""Triton kernel and its launcher: one program for each row of logits."""

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 8192


def softmax_losses(
    logits_nV: Tensor, targets_n: Tensor, losses_n: Tensor, need_gradient: bool
) -> None:
    """The losses; the logits become the gradient of their sum where it is needed."""
    _losses_kernel[(logits_nV.shape[0],)](
        logits_nV, targets_n, losses_n, logits_nV.shape[1], logits_nV.stride(0),
        GRADIENT=need_gradient, BLOCK=_BLOCK, num_warps=8,
    )  # fmt: skip


@triton.jit
def _losses_kernel(
    logits, targets, losses, V, logits_n, GRADIENT: tl.constexpr, BLOCK: tl.constexpr
):
    """Largest logit and sum of the exponentials in one pass, the gradient in a second."""
    n = tl.program_id(0).to(tl.int64)
    row = logits + n * logits_n
    target = tl.load(targets + n)
    largest, total = -float("inf"), 0.0
    for v0 in range(0, V, BLOCK):
        v = v0 + tl.arange(0, BLOCK)
        x = tl.load(row + v, mask=v < V, other=-float("inf")).to(tl.float32)
        before = largest
        largest = tl.maximum(largest, tl.max(x))
        total = total * tl.exp(before - largest) + tl.sum(tl.exp(x - largest))
    normalizer = largest + tl.log(total)
    tl.store(losses + n, normalizer - tl.load(row + target).to(tl.float32))
    if GRADIENT:
        for v0 in range(0, V, BLOCK):
            v = v0 + tl.arange(0, BLOCK)
            x = tl.load(row + v, mask=v < V, other=0.0).to(tl.float32)
            g = tl.exp(x - normalizer) - (v == target).to(tl.float32)
            tl.store(row + v, g.to(logits.dtype.element_ty), mask=v < V)
