"""The definition. Slow, obvious, differentiable by PyTorch, and never tuned.

Shape suffixes of this folder: T rows (tokens), D columns of all heads, d half of a head.
"""

import torch
from torch import Tensor

__all__ = ["rope_ref"]


def rope_ref(
    q_TD: Tensor, k_TD: Tensor, v_TD: Tensor, cos_Td: Tensor, sin_Td: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Each head's halves (a, b) become (a cos - b sin, b cos + a sin); v stays as it is."""
    return _rotated(q_TD, cos_Td, sin_Td), _rotated(k_TD, cos_Td, sin_Td), v_TD


def _rotated(x_TD: Tensor, cos_Td: Tensor, sin_Td: Tensor) -> Tensor:
    half = cos_Td.shape[1]
    heads = x_TD.unflatten(1, (-1, 2, half))
    a, b = heads.unbind(2)
    cos, sin = (
        t[:, None].to(torch.promote_types(x_TD.dtype, torch.float32)) for t in (cos_Td, sin_Td)
    )
    return torch.stack((a * cos - b * sin, b * cos + a * sin), 2).flatten(1).to(x_TD.dtype)
