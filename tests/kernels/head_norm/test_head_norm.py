import pytest
import torch
from torch import Tensor

from alto_kernels.head_norm import head_norm_ref
from alto_kernels.head_norm.autograd import HeadNorm
from tests.kernels.comparing import DEVICE, HALF, assert_as_exact_as_torch

EPSILON = 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
@pytest.mark.parametrize(
    ("rows", "heads", "key_heads", "size"), [(5, 4, 2, 16), (3, 3, 1, 12), (1, 16, 8, 64)]
)
def test_values_and_gradients(
    rows: int, heads: int, key_heads: int, size: int, dtype: torch.dtype
) -> None:
    """Of columns that a product made side by side, values behind them."""
    torch.manual_seed(0)
    widths = [size * count for count in (heads, key_heads, key_heads)]
    qkv, dqkv = (torch.randn(rows, sum(widths), device=DEVICE, dtype=dtype) for _ in range(2))
    weights = torch.rand(2, size, device=DEVICE, dtype=dtype) + 0.5

    def run(dtype: torch.dtype, ours: bool) -> list[Tensor]:
        leaf = qkv.to(dtype).requires_grad_()
        q, k, _ = leaf.split(widths, dim=1)
        q_weight, k_weight = weights.to(dtype)
        normed = (HeadNorm.apply if ours else head_norm_ref)(q, k, q_weight, k_weight, EPSILON)
        given = dqkv.to(dtype, copy=True).split(widths, dim=1)[:2]
        gradients = torch.autograd.grad(normed, (q, k), given)
        return [*(part.detach() for part in normed), *gradients]

    for got, torchs, exact in zip(
        run(dtype, True), run(dtype, False), run(torch.float64, False), strict=True
    ):
        assert_as_exact_as_torch(got, torchs, exact)


def test_gradients_stay_where_they_lie_and_those_of_values_are_left_alone() -> None:
    """The product that made all three reads them as one."""
    q, k, v = torch.randn(3, 5 * 16, device=DEVICE).split([32, 32, 16], dim=1)
    weight = torch.ones(16, device=DEVICE)
    q, k = (part.detach().requires_grad_() for part in (q, k))
    given = torch.randn(3, 5 * 16, device=DEVICE)
    before = given.clone()
    dq, dk, dv = given.split([32, 32, 16], dim=1)
    normed = HeadNorm.apply(q, k, weight, weight, EPSILON)
    found = torch.autograd.grad(normed, (q, k), (dq, dk))
    assert [part.data_ptr() for part in found] == [dq.data_ptr(), dk.data_ptr()]
    assert torch.equal(dv, before[:, 64:])
    assert not torch.equal(dq, before[:, :32])
    assert len(v) == 3


def test_no_rows() -> None:
    q, k = torch.empty(0, 32, device=DEVICE), torch.empty(0, 16, device=DEVICE)
    weight = torch.ones(16, device=DEVICE)
    normed = HeadNorm.apply(q, k, weight, weight, EPSILON)
    assert [part.shape for part in normed] == [q.shape, k.shape]
