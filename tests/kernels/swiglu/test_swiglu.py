import pytest
import torch
from torch import Tensor

from alto_kernels.swiglu import swiglu_ref
from alto_kernels.swiglu.autograd import SwiGlu
from tests.kernels.comparing import DEVICE, HALF, assert_as_exact_as_torch


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(3, 1030), (1, 7), (5, 64)])
def test_values_and_gradients_of_columns_of_one_tensor(
    rows: int, columns: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    both = 3 * torch.randn(rows, 2 * columns, device=DEVICE, dtype=dtype)
    dy = torch.randn(rows, columns, device=DEVICE, dtype=dtype)

    def run(dtype: torch.dtype, ours: bool) -> tuple[Tensor, Tensor]:
        leaf = both.to(dtype).requires_grad_()
        gate, up = leaf.split(columns, dim=1)
        y = SwiGlu.apply(gate, up) if ours else swiglu_ref(gate, up)
        return y.detach(), torch.autograd.grad(y, leaf, dy.to(dtype))[0]

    for got, torchs, exact in zip(
        run(dtype, True), run(dtype, False), run(torch.float64, False), strict=True
    ):
        assert_as_exact_as_torch(got, torchs, exact)


def test_the_gradients_lie_side_by_side() -> None:
    gate, up = torch.randn(4, 20, device=DEVICE).requires_grad_().split(10, dim=1)
    dgate, dup = torch.autograd.grad(SwiGlu.apply(gate, up).sum(), (gate, up))
    assert dgate.untyped_storage().data_ptr() == dup.untyped_storage().data_ptr()
