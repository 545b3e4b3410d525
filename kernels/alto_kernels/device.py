"""Where our kernels run: on a CUDA device, and in Triton's interpreter where a test asks for it."""

import os

from torch import Tensor

__all__ = ["has_kernels"]


def has_kernels(tensor: Tensor) -> bool:
    return tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
