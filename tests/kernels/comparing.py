"""The device of the kernel tests, and the one place that says how exact a kernel must be."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda:0" if ON_GPU else "cpu")
HALF = torch.bfloat16 if ON_GPU else torch.float16  # Triton's interpreter has no bf16 dot
# On the GPU the kernels are for 16 bits; the interpreter checks their arithmetic in fp32 as well.
DTYPES = [torch.bfloat16, torch.float16] if ON_GPU else [torch.float32, torch.float16]


def in_each_dtype(cases: Iterable[Any]) -> list[Any]:
    """Parameters of each case and a dtype; in the interpreter, which takes its time, the dtypes
    take turns."""
    found = []
    for number, case in enumerate(cases):
        chosen = DTYPES if ON_GPU else [DTYPES[number % 2]]
        found += [pytest.param(*case.values, of, id=f"{case.id}-{of}") for of in chosen]
    return found


def assert_as_exact_as_torch(ours: Tensor, torchs: Tensor, exact: Tensor) -> None:
    """Our error may be twice PyTorch's own error in the same dtype, and no more."""
    allowed = 2 * (torchs.double() - exact).abs().max() + 1e-6 * exact.abs().max()
    error = (ours.double() - exact).abs().max()
    assert error <= allowed, f"error {error:.3g}, PyTorch's own allows {allowed:.3g}"
