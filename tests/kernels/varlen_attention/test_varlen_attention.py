import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alto_kernels.rope import rope_ref
from alto_kernels.varlen_attention import CumulativeLengths, tiles, varlen_attention
from alto_kernels.varlen_attention.autograd import VarlenAttention
from alto_kernels.varlen_attention.tiles import Tiles
from tests.kernels.comparing import (
    DEVICE,
    DTYPES,
    HALF,
    ON_GPU,
    assert_as_exact_as_torch,
    in_each_dtype,
)

Attention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, CumulativeLengths, int], Tensor]
ATTENTIONS: dict[str, Attention] = {"kernels": VarlenAttention.apply, "called": varlen_attention}


def attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    lengths: CumulativeLengths,
    size: int,
) -> Tensor:
    """The definition: softmax(q k^T / sqrt(size)) v over the tokens so far of the sequence, q and k
    turned."""
    q, k, v = rope_ref(q, k, v, cos, sin)
    repeats = q.shape[1] // k.shape[1]
    counts = torch.tensor(lengths.lengths)
    number = torch.repeat_interleave(torch.arange(len(counts)), counts)
    place = torch.arange(len(number))
    sees = (number[:, None] == number) & (place[:, None] >= place)
    heads = [t.unflatten(1, (-1, size)).transpose(0, 1) for t in (q, k, v)]
    q_hts, k_hts, v_hts = heads[0], *(t.repeat_interleave(repeats, dim=0) for t in heads[1:])
    scores = (q_hts @ k_hts.mT / math.sqrt(size)).masked_fill(~sees.to(q.device), -torch.inf)
    mixed: Tensor = scores.softmax(-1) @ v_hts
    return mixed.transpose(0, 1).flatten(1)


def draw(tokens: int, heads: int, key_heads: int, size: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values side by side, and the gradient of the result."""
    torch.manual_seed(0)
    columns = size * (heads + 2 * key_heads), size * heads
    return [torch.randn(tokens, width, device=DEVICE, dtype=dtype) for width in columns]


def run(
    attention: Attention,
    qkv: Tensor,
    dy: Tensor,
    lengths: CumulativeLengths,
    size: int,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """The result, and the gradients side by side. Angles are those of rows from `first` on."""
    places = torch.arange(first, first + len(qkv), device=DEVICE, dtype=torch.float64)
    angles = places[:, None] * torch.linspace(0.1, 1.5, size // 2, device=DEVICE)
    wide = torch.promote_types(qkv.dtype, torch.float32)
    tables = angles.cos().to(wide), angles.sin().to(wide)
    leaf = qkv.clone().requires_grad_()
    key_width = (qkv.shape[1] - dy.shape[1]) // 2
    q, k, v = leaf.split([dy.shape[1], key_width, key_width], dim=1)
    y = attention(q, k, v, *tables, lengths, size)
    return y.detach(), torch.autograd.grad(y, leaf, dy.to(qkv.dtype))[0]


def assert_exact(
    attention: Attention, lengths: tuple[int, ...], case: tuple[int, int, int], dtype: torch.dtype
) -> None:
    qkv, dy = draw(sum(lengths), *case, dtype)
    size = case[2]
    sequences = CumulativeLengths.of(lengths, DEVICE)
    for got, torchs, exact in zip(
        run(attention, qkv, dy, sequences, size),
        run(attention_ref, qkv, dy, sequences, size),
        run(attention_ref, qkv.double(), dy, sequences, size),
        strict=True,
    ):
        assert_as_exact_as_torch(got, torchs, exact)


CASES = [(4, 2, 16), (6, 2, 64), (2, 2, 128)]
OF_LENGTHS = [
    pytest.param(case, lengths, id=f"{case}-{lengths}")
    for case in CASES
    for lengths in [(5, 1, 9), (12,), (70, 0, 131)]
]


@pytest.mark.parametrize(("case", "lengths", "dtype"), in_each_dtype(OF_LENGTHS))
def test_values_and_gradients(
    case: tuple[int, int, int], lengths: tuple[int, ...], dtype: torch.dtype
) -> None:
    assert_exact(VarlenAttention.apply, lengths, case, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", [(5, 1, 9), (12,), (3, 4)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_as_called(
    case: tuple[int, int, int], lengths: tuple[int, ...], dtype: torch.dtype
) -> None:
    assert_exact(varlen_attention, lengths, case, dtype)


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (16, 64), (64, 16)])
def test_blocks_of_every_shape(queries: int, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (tiles.MIXED, tiles.QUERY_GRADIENTS, tiles.KEY_GRADIENTS):
        monkeypatch.setitem(table, 16, Tiles(queries, keys, warps=4, stages=2))
    assert_exact(VarlenAttention.apply, (80, 33, 7), CASES[0], HALF)


def test_every_kernel_has_tiles_for_the_same_sizes() -> None:
    assert set(tiles.MIXED) == set(tiles.QUERY_GRADIENTS) == set(tiles.KEY_GRADIENTS)


def test_a_sequence_gets_the_same_bits_whatever_is_beside_it() -> None:
    attention = VarlenAttention.apply
    qkv, dy = draw(145, *CASES[0], HALF)
    among = CumulativeLengths.of((7, 66, 0, 72), DEVICE)
    alone = CumulativeLengths.of((66,), DEVICE)
    rows = slice(7, 73)
    wholes = run(attention, qkv, dy, among, 16)
    for whole, again in zip(wholes, run(attention, qkv, dy, among, 16), strict=True):
        assert torch.equal(whole, again)
    parts = run(attention, qkv[rows], dy[rows], alone, 16, first=7)
    for whole, part in zip(wholes, parts, strict=True):
        assert torch.equal(whole[rows], part)


def test_recorded_launches_serve_other_ends() -> None:
    """They keep the number of sequences and the longest; what is left over has no rows."""
    qkv, dy = draw(70, *CASES[0], HALF)
    lengths = CumulativeLengths.of((66, 4), DEVICE)
    room = replace(CumulativeLengths.of((66, 4, 0, 0), DEVICE), longest=200)
    attention = VarlenAttention.apply
    for got, expected in zip(
        run(attention, qkv, dy, room, 16), run(attention, qkv, dy, lengths, 16), strict=True
    ):
        assert torch.equal(got, expected)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
def test_what_is_no_number_stays_in_its_sequence(attention: Attention) -> None:
    qkv, dy = draw(90, *CASES[0], HALF)
    lengths = CumulativeLengths.of((9, 5, 76), DEVICE)
    clean = run(attention, qkv, dy, lengths, 16)
    sick = slice(9, 14)
    qkv[sick], dy[sick] = torch.nan, torch.nan
    for got, expected in zip(run(attention, qkv, dy, lengths, 16), clean, strict=True):
        assert got[sick].isnan().all()
        assert torch.equal(got[:9], expected[:9])
        assert torch.equal(got[14:], expected[14:])


@pytest.mark.parametrize("size", [80, 256])
@pytest.mark.skipif(not ON_GPU, reason="off the GPU every size is one")
def test_sizes_without_kernels(size: int) -> None:
    assert_exact(varlen_attention, (20, 3), (2, 1, size), HALF)


def test_no_rows() -> None:
    qkv, dy = draw(0, *CASES[0], HALF)
    y, gradients = run(VarlenAttention.apply, qkv, dy, CumulativeLengths.of((0,), DEVICE), 16)
    assert (y.shape, gradients.shape) == (dy.shape, qkv.shape)
