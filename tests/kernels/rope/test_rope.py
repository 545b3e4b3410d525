import pytest
import torch
from torch import Tensor

from alto_kernels.rope import rope_ref
from alto_kernels.rope.autograd import Rope
from tests.kernels.comparing import DEVICE, HALF, assert_as_exact_as_torch


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
@pytest.mark.parametrize(
    ("rows", "heads", "key_heads", "half"), [(5, 4, 2, 8), (2, 3, 1, 12), (1, 1, 1, 32)]
)
def test_values_and_gradients(
    rows: int, heads: int, key_heads: int, half: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    widths = [2 * half * count for count in (heads, key_heads, key_heads)]
    qkv, dqkv = (torch.randn(rows, sum(widths), device=DEVICE, dtype=dtype) for _ in range(2))
    angles = torch.arange(rows, device=DEVICE)[:, None] * torch.rand(half, device=DEVICE)

    def run(dtype: torch.dtype, ours: bool) -> list[Tensor]:
        leaf = qkv.to(dtype).requires_grad_()
        wide = torch.promote_types(dtype, torch.float32)
        tables = angles.to(wide).cos(), angles.to(wide).sin()
        q, k, v = leaf.split(widths, dim=1)
        rotated = (Rope.apply if ours else rope_ref)(q, k, v, *tables)
        gradient = torch.autograd.grad(rotated, leaf, dqkv.to(dtype).split(widths, dim=1))
        return [*(part.detach() for part in rotated), *gradient]

    for got, torchs, exact in zip(
        run(dtype, True), run(dtype, False), run(torch.float64, False), strict=True
    ):
        assert_as_exact_as_torch(got, torchs, exact)
