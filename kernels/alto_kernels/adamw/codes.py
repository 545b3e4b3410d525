"""Moments in 8 bits: numbers as shares of the largest in their block of columns.

Dynamic tree quantization (Dettmers, Lewis, Shleifer and Zettlemoyer 2022, arXiv 2110.02861): the
place of a code's highest bit tells the power of ten, the bits below it count equal parts from a
tenth of that power up to it. With n parts in the first decade, each further one has half as many:
code n / 2^e - 1 + j stands for 10^-e (0.1 + 0.9 j 2^e / n), j from 1 on, and 0 for zero. A first
moment has n = 64 and a bit for its sign, the second n = 128.

Two things are our own. The second moment is kept as its root, and what is not zero does not become
zero: a root of zero would turn the step it divides into rubbish (the zero point of Li, Chen and Zhu
2023, arXiv 2309.01507). Of the two codes beside a number the one is taken with the probability that
makes the expected value right: the nearest would never move where a step changes a moment by less
than half the distance, which a second moment with beta 0.999 does nearly always. The dice are a
hash of (step, row of the job, column), so they are the same wherever the job has its rows.
"""

import torch
from torch import Tensor

from alto_kernels.adamw.plan import BLOCK, Moments
from alto_kernels.lora_linear.dropout import dropout_key, hashes

__all__ = ["MEAN_PARTS", "ROOT_PARTS", "dice_of", "load", "row_keys", "store"]

MEAN_PARTS, ROOT_PARTS = 64, 128  # of the first decade
_SIGN = 128


def row_keys(step: int, num_rows: int) -> Tensor:
    """(r,) int64 in main memory: 32 bits of dice for each row of a job in its step."""
    return hashes(torch.tensor([dropout_key(step)]), torch.arange(num_rows))[0]


def dice_of(keys_r: Tensor, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(r, C) each, from 0 to 1: for the first moment and for the second."""
    columns_C = torch.arange(columns, dtype=torch.int64, device=device)
    bits_rC = hashes(keys_r.to(device), columns_C)
    return (bits_rC & 0xFFFF) / 65536, (bits_rC >> 16) / 65536


def load(moments: Moments, rows: slice) -> tuple[Tensor, Tensor]:
    """Both moments of some rows, in the precision of their scales."""
    assert moments.mean_scale_RB is not None
    assert moments.root_scale_RB is not None
    codes_rC = moments.mean_RC[rows].int()
    is_negative_rC = codes_rC >= _SIGN
    share_rC = _share(codes_rC - _SIGN * is_negative_rC, MEAN_PARTS)
    columns = share_rC.shape[1]
    mean_rC = share_rC * _spread(moments.mean_scale_RB[rows], columns)
    root_rC = _share(moments.square_RC[rows].int(), ROOT_PARTS)
    root_rC = root_rC * _spread(moments.root_scale_RB[rows], columns)
    return torch.where(is_negative_rC, -mean_rC, mean_rC), root_rC * root_rC


def store(
    moments: Moments, rows: slice, mean_rC: Tensor, square_rC: Tensor, keys_r: Tensor
) -> None:
    """Write both moments of some rows of one job, with its dice."""
    assert moments.mean_scale_RB is not None
    assert moments.root_scale_RB is not None
    columns = mean_rC.shape[1]
    dice_rC, other_dice_rC = dice_of(keys_r, columns, mean_rC.device)
    moments.mean_scale_RB[rows] = _largest(mean_rC.abs())
    share_rC = _shares(mean_rC.abs(), moments.mean_scale_RB[rows])
    code_rC = _code(share_rC, dice_rC, MEAN_PARTS)
    moments.mean_RC[rows] = (code_rC + _SIGN * (mean_rC < 0)).to(torch.uint8)
    root_rC = square_rC.sqrt()
    moments.root_scale_RB[rows] = _largest(root_rC)
    share_rC = _shares(root_rC, moments.root_scale_RB[rows])
    code_rC = _code(share_rC, other_dice_rC, ROOT_PARTS)
    moments.square_RC[rows] = torch.maximum(code_rC, (share_rC > 0).int()).to(torch.uint8)


def _largest(size_rC: Tensor) -> Tensor:
    """(r, B): of each block."""
    rest = -size_rC.shape[1] % BLOCK
    padded_rC = torch.nn.functional.pad(size_rC, (0, rest))
    return padded_rC.view(len(padded_rC), -1, BLOCK).amax(2)


def _spread(scale_rB: Tensor, columns: int) -> Tensor:
    return scale_rB.repeat_interleave(BLOCK, dim=1)[:, :columns]


def _shares(size_rC: Tensor, scale_rB: Tensor) -> Tensor:
    """Of the largest; zero where that is zero or no number, and all of it is lost."""
    return (size_rC / _spread(scale_rB, size_rC.shape[1])).nan_to_num(0.0, 0.0, 0.0)


def _code(share_rC: Tensor, dice_rC: Tensor, parts: int) -> Tensor:
    """int32; see above."""
    place_rC = torch.zeros_like(share_rC)
    for e in range(parts.bit_length()):
        count, scaled_rC = parts >> e, share_rC * 10.0**e
        inside_rC = scaled_rC if count == 1 else (scaled_rC - 0.1) / 0.9 * count
        place_rC = torch.where(share_rC <= 10.0**-e, count - 1 + inside_rC, place_rC)
    return (place_rC + dice_rC).floor().clamp(max=2 * parts - 1).int()


def _share(code_rC: Tensor, parts: int) -> Tensor:
    dtype = torch.get_default_dtype()
    share_rC = torch.zeros(code_rC.shape, dtype=dtype, device=code_rC.device)
    for e in range(parts.bit_length()):
        count = parts >> e
        found_rC = (0.1 + 0.9 * (code_rC - count + 1).to(dtype) / count) * 10.0**-e
        share_rC = torch.where((code_rC >= count) & (code_rC < 2 * count), found_rC, share_rC)
    return share_rC
