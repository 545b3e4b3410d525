import pytest
import torch
from torch import Tensor

from alto_kernels.linear_cross_entropy import (
    autograd,
    linear_cross_entropy,
    linear_cross_entropy_ref,
)
from tests.kernels.comparing import DEVICE, ON_GPU, assert_as_exact_as_torch

NARROW = torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, NARROW], ids=str)
@pytest.mark.parametrize("segments", [(5, 0, 9), (1,), (3, 3, 3, 3)], ids=str)
def test_sums_and_gradient(
    segments: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, vocabulary, rows = 24, 101, sum(segments)
    monkeypatch.setattr(autograd, "_CHUNK_BYTES", 4 * vocabulary * dtype.itemsize)  # 4 rows
    torch.manual_seed(0)
    h = torch.randn(rows, hidden, device=DEVICE, dtype=dtype)
    weight = torch.randn(vocabulary, hidden, device=DEVICE, dtype=dtype)
    targets = torch.randint(vocabulary, (rows,), device=DEVICE)
    weigh = torch.rand(len(segments), device=DEVICE)

    def run(dtype: torch.dtype, ours: bool) -> tuple[Tensor, Tensor]:
        leaf = h.to(dtype).requires_grad_()
        f = linear_cross_entropy if ours else linear_cross_entropy_ref
        sums = f(leaf, weight.to(dtype), targets, segments)
        return sums.detach(), torch.autograd.grad((sums * weigh.to(sums.dtype)).sum(), leaf)[0]

    for got, torchs, exact in zip(
        run(dtype, True), run(dtype, False), run(torch.float64, False), strict=True
    ):
        assert_as_exact_as_torch(got, torchs, exact)


def test_refuses_segments_of_another_batch() -> None:
    h, weight = torch.zeros(3, 4, device=DEVICE), torch.zeros(5, 4, device=DEVICE)
    with pytest.raises(ValueError, match="3 hidden states"):
        linear_cross_entropy(h, weight, torch.zeros(3, dtype=torch.long, device=DEVICE), (2,))


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="measures the GPU's memory")
def test_the_logits_never_exist_together() -> None:
    h = torch.randn(16384, 2048, device=DEVICE, dtype=NARROW).requires_grad_()
    weight = torch.randn(128256, 2048, device=DEVICE, dtype=NARROW)
    targets = torch.randint(128256, (16384,), device=DEVICE)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    linear_cross_entropy(h, weight, targets, (16384,)).sum().backward()
    grown = torch.cuda.max_memory_allocated() - before
    assert grown < 16384 * 128256 * 2 / 2
