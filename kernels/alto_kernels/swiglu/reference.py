"""The definition. Slow, obvious, differentiable by PyTorch, and never tuned."""

from torch import Tensor
from torch.nn.functional import silu

__all__ = ["swiglu_ref"]


def swiglu_ref(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    return silu(gate_TF) * up_TF
