import pytest
import torch
from torch import Tensor

from alto_kernels.rms_norm import add_rms_norm_ref
from alto_kernels.rms_norm.autograd import AddNorm, Norm
from tests.kernels.comparing import DEVICE, HALF, assert_as_exact_as_torch

EPSILON = 1e-5


@pytest.mark.parametrize("adds", [True, False], ids=["added", "alone"])
@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
@pytest.mark.parametrize(("rows", "hidden"), [(5, 64), (3, 37), (1, 130), (0, 16)])
def test_values_and_gradients(rows: int, hidden: int, dtype: torch.dtype, adds: bool) -> None:
    torch.manual_seed(0)
    h, delta, dnew, dx = (torch.randn(rows, hidden, device=DEVICE, dtype=dtype) for _ in range(4))
    weight = torch.rand(hidden, device=DEVICE, dtype=dtype) + 0.5

    def run(dtype: torch.dtype, ours: bool) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in ((h, delta) if adds else (h,))]
        w = weight.to(dtype)
        if ours:
            new, x = (
                AddNorm.apply(*leaves, w, EPSILON)
                if adds
                else (leaves[0], Norm.apply(leaves[0], w, EPSILON))
            )
        else:
            new, x = add_rms_norm_ref(leaves[0], leaves[1] if adds else None, w, EPSILON)
        gradients = torch.autograd.grad((new, x), leaves, (dnew.to(dtype), dx.to(dtype)))
        return [new.detach(), x.detach(), *gradients]

    for got, torchs, exact in zip(
        run(dtype, True), run(dtype, False), run(torch.float64, False), strict=True
    ):
        if rows:
            assert_as_exact_as_torch(got, torchs, exact)
        else:
            assert got.shape == exact.shape
