"""Dropout masks from a counter: nothing is stored, and no neighbour can shift them.

Two neighbouring columns share a 32-bit hash of (key, linear, token, column pair) and take 16 bits
of it each; an element is kept when its bits are at least p * 2^16. The hash is made of rounds of
the xor-multiply mixer `lowbias32` (Wellons 2018, public domain); `kernel/mask.py` has it too.
"""

import torch
from torch import Tensor

from alto_kernels.lora_linear.segments import Segment

__all__ = ["dropout_key", "hashes", "keep_mask", "threshold"]

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


def dropout_key(*parts: int) -> int:
    """32 bits from whole numbers such as (seed, step)."""
    key = 0
    for part in parts:
        key = _absorb(key, part)
    return key


def threshold(dropout: float) -> int:
    """Elements with 16 bits below this are dropped."""
    return round(dropout * 2**16)


def keep_mask(
    segment: Segment, linear_number: int, num_columns: int, device: torch.device
) -> Tensor:
    """(rows of the segment, `num_columns`) bool: the elements that dropout leaves."""
    key = _absorb(dropout_key(segment.dropout_key), linear_number)
    end_token = segment.first_token + segment.end_row - segment.first_row
    tokens_T = torch.arange(segment.first_token, end_token, dtype=torch.int64, device=device)
    pairs = torch.arange((num_columns + 1) // 2, dtype=torch.int64, device=device)
    row_T = _mix_tensor((tokens_T & _MASK) ^ key)
    found = hashes(row_T, pairs)
    bits_TI = torch.stack([found & 0xFFFF, found >> 16], dim=-1).flatten(1)[:, :num_columns]
    return bits_TI >= threshold(segment.dropout)


def hashes(keys_T: Tensor, columns_I: Tensor) -> Tensor:
    """(T, I) int64 that hold 32 bits each, from keys of 32 bits and numbers of columns."""
    return _mix_tensor((keys_T[:, None] + columns_I * _GOLDEN) & _MASK)


def _absorb(key: int, part: int) -> int:
    return _mix((_mix(key ^ (part & _MASK)) + _GOLDEN) & _MASK)


def _mix(x: int) -> int:
    x ^= x >> 16
    x = (x * 0x7FEB352D) & _MASK
    x ^= x >> 15
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def _mix_tensor(x: Tensor) -> Tensor:
    """`_mix` on int64 elements that hold 32 bits."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)
