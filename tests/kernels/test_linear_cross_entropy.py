"""Losses and the gradient of hidden, in chunks, against float64."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alto_kernels.linear_cross_entropy import chunks, linear_cross_entropy, linear_cross_entropy_ref
from alto_kernels.linear_cross_entropy.kernel import softmax_losses
from tests.kernels.comparing import DEVICE, DTYPES, assert_as_exact_as_torch

N, H, V = 37, 24, 1003


def draw(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, H, generator=generator).to(dtype).double().to(DEVICE)
    weight = torch.randn(V, H, generator=generator).to(dtype).double().to(DEVICE)
    targets = torch.randint(0, V, (N,), generator=generator).to(DEVICE)
    dlosses = torch.rand(N, generator=generator).to(dtype).double().to(DEVICE)
    return hidden, weight, targets, dlosses


@pytest.mark.parametrize("elements", [1 << 27, 10 * V, 1], ids=["one chunk", "four", "single rows"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_losses_and_gradient(
    dtype: torch.dtype, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_ELEMENTS", elements)
    hidden, weight, targets, dlosses = draw(dtype)

    def run(f: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = hidden.to(dtype).requires_grad_()
        losses = f(leaf, weight.to(dtype), targets)
        (gradient,) = torch.autograd.grad(losses, [leaf], dlosses.to(losses.dtype))
        return losses.detach(), gradient

    exact = run(linear_cross_entropy_ref, torch.float64)
    ours, torchs = run(linear_cross_entropy, dtype), run(linear_cross_entropy_ref, dtype)
    for o, t, e in zip(ours, torchs, exact, strict=True):
        assert_as_exact_as_torch(o, t, e)


@pytest.mark.parametrize("need_gradient", [True, False])
def test_logits_of_one_chunk_are_gone_when_the_next_are_made(
    need_gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_ELEMENTS", 10 * V)
    made: list[weakref.ref[Tensor]] = []
    linear = torch.nn.functional.linear

    def watched(hidden: Tensor, weight: Tensor) -> Tensor:
        assert all(logits() is None for logits in made)
        logits = linear(hidden, weight)
        made.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    hidden, weight, targets, _ = draw(torch.float32)
    linear_cross_entropy(hidden.requires_grad_(need_gradient), weight, targets)
    assert len(made) == 4


@pytest.mark.parametrize("need_gradient", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernel_on_rows_of_logits(dtype: torch.dtype, need_gradient: bool) -> None:
    logits = torch.randn(5, 20011, generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    logits[:, 20000:] = -100  # the largest is not in the last block
    targets = torch.tensor([0, 20010, 8191, 8192, 7], device=DEVICE)
    losses = torch.empty(5, device=DEVICE)
    exact_logits = logits.double().requires_grad_()
    exact = torch.nn.functional.cross_entropy(exact_logits, targets, reduction="none")
    (gradient,) = torch.autograd.grad(exact.sum(), [exact_logits])
    before = logits.clone()
    softmax_losses(logits, targets, losses, need_gradient)
    torchs = torch.nn.functional.cross_entropy(before.float(), targets, reduction="none")
    assert_as_exact_as_torch(losses, torchs, exact.detach())
    if need_gradient:
        assert_as_exact_as_torch(logits, gradient.to(dtype), gradient)
    else:
        assert torch.equal(logits, before)


def test_refuses_what_does_not_belong_together() -> None:
    hidden, weight, targets, _ = draw(torch.float32)
    with pytest.raises(ValueError, match="36 targets"):
        linear_cross_entropy(hidden, weight, targets[1:])


@pytest.mark.parametrize(
    ("vocabulary", "rows"),
    [(128_256, 1024), (151_936, 768), (1 << 19, 256), ((1 << 19) + 1, 255), (1 << 28, 1)],
)
def test_chunks_are_whole_tiles_where_there_is_room(vocabulary: int, rows: int) -> None:
    assert chunks.chunk_rows(vocabulary) == rows
