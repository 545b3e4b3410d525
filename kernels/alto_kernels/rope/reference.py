"""The definition, with the two halves of a head as pairs (as transformers stores Llama).

Suffixes: T rows, N heads, D size of a head.
"""

import torch
from torch import Tensor

__all__ = ["rope_ref"]


def rope_ref(x_TND: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    left, right = x_TND.chunk(2, dim=-1)
    return x_TND * cos_TD[:, None] + torch.cat([-right, left], dim=-1) * sin_TD[:, None]
