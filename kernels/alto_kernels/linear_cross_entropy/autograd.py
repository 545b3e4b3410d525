"""Chunks of rows pass through the head one after another: their logits never exist together.

The gradient of a row's loss by its hidden state is made in the forward pass, while the logits of
its chunk are there; the backward pass only weighs it. The head is frozen: it gets no gradient.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["linear_cross_entropy"]

_CHUNK_BYTES = 256 * 2**20  # of logits, in the dtype of the hidden states


def linear_cross_entropy(
    h_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, rows_per_segment: Sequence[int]
) -> Tensor:
    """(S,) fp32 or wider: the cross-entropy of each row's target, summed over a segment's rows.

    Raises ValueError where the segments do not add up to the rows.
    """
    if sum(rows_per_segment) != h_NH.shape[0] or h_NH.shape[0] != targets_N.shape[0]:
        raise ValueError(
            f"{tuple(rows_per_segment)} rows, {h_NH.shape[0]} hidden states and "
            f"{targets_N.shape[0]} targets"
        )
    segment_N = torch.repeat_interleave(
        torch.arange(len(rows_per_segment)), torch.tensor(rows_per_segment)
    ).to(h_NH.device, non_blocking=True)
    sums: Tensor = _LinearCrossEntropy.apply(
        h_NH, weight_VH, targets_N, segment_N, len(rows_per_segment)
    )
    return sums


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        segment_N: Tensor,
        num_segments: int,
    ) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        rows = max(1, _CHUNK_BYTES // (weight_VH.shape[0] * h_NH.element_size()))
        dh_NH = torch.empty_like(h_NH) if wants_gradient else None
        sum_dtype = torch.promote_types(h_NH.dtype, torch.float32)
        losses_N = torch.empty(h_NH.shape[0], dtype=sum_dtype, device=h_NH.device)
        for first in range(0, h_NH.shape[0], rows):
            part = slice(first, first + rows)
            logits_nV = h_NH[part] @ weight_VH.T
            wide_nV = logits_nV.to(sum_dtype)
            log_sums_n = wide_nV.logsumexp(1)
            targets_n1 = targets_N[part, None]
            losses_N[part] = log_sums_n - wide_nV.gather(1, targets_n1)[:, 0]
            if dh_NH is not None:
                probabilities_nV = wide_nV.sub_(log_sums_n[:, None]).exp_()
                ones = torch.ones_like(targets_n1, dtype=sum_dtype)
                probabilities_nV.scatter_add_(1, targets_n1, -ones)
                dh_NH[part] = probabilities_nV.to(h_NH.dtype) @ weight_VH
        ctx.save_for_backward(dh_NH, segment_N)
        # A matrix product sums in a fixed order, which index_add_ on a GPU does not.
        one_hot_SN = segment_N == torch.arange(num_segments, device=h_NH.device)[:, None]
        return (one_hot_SN * losses_N).sum(1)

    @staticmethod
    def backward(ctx: Any, d_sums_S: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        dh_NH, segment_N = ctx.saved_tensors
        weights_N1 = d_sums_S[segment_N, None]
        return (dh_NH * weights_N1).to(dh_NH.dtype), None, None, None, None
