"""SwiGLU: the kernels against float64, forward and gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alto_kernels.swiglu import swiglu, swiglu_ref
from alto_kernels.swiglu.autograd import SwiGlu
from tests.kernels.comparing import DEVICE, DTYPES, ON_GPU, assert_as_exact_as_torch

T = 2048 if ON_GPU else 5
Function = Callable[..., Tensor]


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype).double().to(DEVICE)


def compare(
    kernel: Function, reference: Function, leaves: list[Tensor], others: list[Tensor],
    dtype: torch.dtype,
) -> None:  # fmt: skip
    def run(function: Function, dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [leaf.to(dtype).requires_grad_() for leaf in leaves]
        y = function(*inputs, *(other.to(dtype) for other in others))
        dy = normal(*y.shape, dtype=dtypes, seed=9).to(y.dtype)
        return y.detach(), *torch.autograd.grad(y, inputs, dy)

    dtypes = dtype
    results = zip(
        run(kernel, dtype), run(reference, dtype), run(reference, torch.float64), strict=True
    )
    for ours, torchs, exact in results:
        assert_as_exact_as_torch(ours, torchs, exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [24, 4104])
def test_swiglu_on_the_columns_of_one_tensor(width: int, dtype: torch.dtype) -> None:
    both = normal(T, 2 * width, dtype=dtype)

    def on_columns(function: Function) -> Function:
        return lambda both: function(both[:, :width], both[:, width:])

    compare(on_columns(SwiGlu.apply), on_columns(swiglu_ref), [both], [], dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="takes the interpreter minutes")
def test_more_rows_than_a_grid_has_in_its_other_dimensions() -> None:
    both = normal(65_600, 16, dtype=torch.bfloat16)
    compare(
        lambda both: SwiGlu.apply(both[:, :8], both[:, 8:]),
        lambda both: swiglu_ref(both[:, :8], both[:, 8:]),
        [both],
        [],
        torch.bfloat16,
    )


def test_off_the_gpu_torch_computes() -> None:
    x = torch.randn(3, 2, 8)
    assert torch.equal(swiglu(x, x), swiglu_ref(x, x))
