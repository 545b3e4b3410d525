import math

import pytest
import torch
from torch import Tensor

from alto_kernels.varlen_attention import CumulativeLengths, varlen_attention
from tests.kernels.comparing import DEVICE, HALF, ON_GPU, assert_as_exact_as_torch


def attention_ref(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], size: int) -> Tensor:
    """The definition: softmax(q k^T / sqrt(size)) v over the tokens so far of the sequence."""
    repeats = q.shape[1] // k.shape[1]
    number = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(sum(lengths))
    sees = (number[:, None] == number) & (place[:, None] >= place)
    heads = [t.unflatten(1, (-1, size)).transpose(0, 1) for t in (q, k, v)]
    q_hts, k_hts, v_hts = heads[0], *(t.repeat_interleave(repeats, dim=0) for t in heads[1:])
    scores = (q_hts @ k_hts.mT / math.sqrt(size)).masked_fill(~sees.to(q.device), -torch.inf)
    mixed: Tensor = scores.softmax(-1) @ v_hts
    return mixed.transpose(0, 1).flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, HALF] if not ON_GPU else [HALF], ids=str)
@pytest.mark.parametrize("lengths", [(5, 1, 9), (12,), (3, 4)], ids=str)
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(4, 2, 16), (9, 3, 64), (2, 2, 128)])
def test_values_and_gradients(
    heads: int, key_heads: int, size: int, lengths: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    widths = [size * count for count in (heads, key_heads, key_heads)]
    qkv = torch.randn(sum(lengths), sum(widths), device=DEVICE, dtype=dtype)
    dy = torch.randn(sum(lengths), widths[0], device=DEVICE, dtype=dtype)

    def run(dtype: torch.dtype, ours: bool) -> tuple[Tensor, Tensor]:
        leaf = qkv.to(dtype).requires_grad_()
        q, k, v = leaf.split(widths, dim=1)
        if ours:
            y = varlen_attention(q, k, v, CumulativeLengths.of(lengths, DEVICE), size)
        else:
            y = attention_ref(q, k, v, lengths, size)
        return y.detach(), torch.autograd.grad(y, leaf, dy.to(dtype))[0]

    for got, torchs, exact in zip(
        run(dtype, True), run(dtype, False), run(torch.float64, False), strict=True
    ):
        assert_as_exact_as_torch(got, torchs, exact)
