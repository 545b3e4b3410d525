"""The definition. Suffixes: N target tokens, H width of the model, V words of the vocabulary."""

import torch
from torch import Tensor

__all__ = ["linear_cross_entropy_ref"]


def linear_cross_entropy_ref(hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor) -> Tensor:
    """(N,) loss of each target."""
    logits_NV = torch.nn.functional.linear(hidden_NH, weight_VH)
    # In 16 bits the softmax is taken in fp32, as transformers' losses do.
    if logits_NV.dtype.itemsize == 2:
        logits_NV = logits_NV.float()
    return torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
