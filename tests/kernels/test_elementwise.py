"""RMSNorm, RoPE and SwiGLU: the kernels against float64, forward and gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alto_kernels.rms_norm import rms_norm, rms_norm_ref
from alto_kernels.rms_norm.autograd import RmsNorm
from alto_kernels.rope import rope, rope_ref
from alto_kernels.rope.autograd import Rope
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
@pytest.mark.parametrize("width", [576, 4096])
def test_rms_norm(width: int, dtype: torch.dtype) -> None:
    x, weight = normal(T, width, dtype=dtype), normal(width, dtype=dtype, seed=1)
    compare(
        lambda x, w: RmsNorm.apply(x, w, 1e-5), lambda x, w: rms_norm_ref(x, w, 1e-5),
        [x], [weight], dtype,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [24, 4104])
def test_swiglu_on_the_columns_of_one_tensor(width: int, dtype: torch.dtype) -> None:
    both = normal(T, 2 * width, dtype=dtype)

    def on_columns(function: Function) -> Function:
        return lambda both: function(both[:, :width], both[:, width:])

    compare(on_columns(SwiGlu.apply), on_columns(swiglu_ref), [both], [], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "size"), [(3, 64), (8, 128), (1, 24)])
def test_rope_on_the_columns_of_one_tensor(heads: int, size: int, dtype: torch.dtype) -> None:
    x = normal(T, (heads + 1) * size, dtype=dtype)
    angles = torch.arange(T)[:, None] / 10 ** torch.linspace(0, 2, size // 2).repeat(2)
    cos, sin = angles.cos().double().to(DEVICE), angles.sin().double().to(DEVICE)

    def on_columns(function: Function) -> Function:
        return lambda x, cos, sin: function(x[:, size:].unflatten(1, (heads, size)), cos, sin)

    cos, sin = cos.to(dtype).double(), sin.to(dtype).double()
    compare(on_columns(Rope.apply), on_columns(rope_ref), [x], [cos, sin], dtype)


def test_off_the_gpu_torch_computes() -> None:
    x = torch.randn(3, 2, 8)
    assert torch.equal(rms_norm(x, torch.ones(8), 1e-6), rms_norm_ref(x, torch.ones(8), 1e-6))
    assert torch.equal(swiglu(x, x), swiglu_ref(x, x))
    assert torch.equal(rope(x, x[:, 0], x[:, 0]), rope_ref(x, x[:, 0], x[:, 0]))
