"""The definition. Suffixes: T rows, F width of the layer."""

from torch import Tensor
from torch.nn.functional import silu

__all__ = ["swiglu_ref"]


def swiglu_ref(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    return silu(gate_TF) * up_TF
