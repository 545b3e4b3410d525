"""Chunks of rows through the head: their losses, and their gradients from the same logits."""

import torch
from torch import Tensor

__all__ = ["chunk_rows", "losses_and_gradient"]

_CHUNK_ELEMENTS = 1 << 27  # of logits: 256 MB in 16 bits
_CHUNK_STEP = 256  # rows; what is over whole tiles costs the card's products 5 %


def losses_and_gradient(
    hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, *, need_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """(N,) fp32 losses, and (N, H) the gradient of their sum."""
    rows = chunk_rows(weight_VH.shape[0])
    losses_N = hidden_NH.new_empty(hidden_NH.shape[0], dtype=_wide(hidden_NH.dtype))
    gradient_NH = hidden_NH.new_empty(hidden_NH.shape) if need_gradient else None
    for first in range(0, hidden_NH.shape[0], rows):
        chunk = slice(first, first + rows)
        logits_nV = torch.nn.functional.linear(hidden_NH[chunk], weight_VH)
        if logits_nV.device.type == "cuda":
            from alto_kernels.linear_cross_entropy.kernel import softmax_losses

            softmax_losses(logits_nV, targets_N[chunk], losses_N[chunk], need_gradient)
        else:
            _softmax_losses(logits_nV, targets_N[chunk], losses_N[chunk], need_gradient)
        if gradient_NH is not None:
            torch.mm(logits_nV, weight_VH, out=gradient_NH[chunk])
        del logits_nV  # before there are those of the next chunk
    return losses_N, gradient_NH


def chunk_rows(vocabulary: int) -> int:
    """Whole steps where there is room for one."""
    rows = max(1, _CHUNK_ELEMENTS // vocabulary)
    return rows - rows % _CHUNK_STEP if rows > _CHUNK_STEP else rows


def _softmax_losses(
    logits_nV: Tensor, targets_n: Tensor, losses_n: Tensor, need_gradient: bool
) -> None:
    """The losses; the logits become the gradient of their sum where it is needed."""
    wide_nV = logits_nV.to(losses_n.dtype)
    at = (torch.arange(len(targets_n), device=targets_n.device), targets_n)
    normalizer_n = torch.logsumexp(wide_nV, dim=1)
    losses_n.copy_(normalizer_n - wide_nV[at])
    if need_gradient:
        wide_nV = torch.exp(wide_nV - normalizer_n[:, None])
        wide_nV[at] -= 1
        logits_nV.copy_(wide_nV)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize == 2 else dtype
