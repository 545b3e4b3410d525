"""The definition, in the arithmetic of transformers' Llama. Suffixes: T rows, H width."""

import torch
from torch import Tensor

__all__ = ["rms_norm_ref"]


def rms_norm_ref(x_TH: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
    wide = x_TH if x_TH.dtype.itemsize > 2 else x_TH.float()
    normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight_H * normal.to(x_TH.dtype)
