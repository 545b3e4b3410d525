"""Dropout masks from a counter: nothing is stored, and no neighbour can shift them.

An element is kept when a 32-bit hash of (key, linear, token, column) is at least p * 2^32. The
hash is two rounds of the xor-multiply mixer `lowbias32` (Wellons 2018, public domain).
"""

import torch
from torch import Tensor

from alto_kernels.lora_linear.plan import Segment

__all__ = ["dropout_key", "keep_mask"]

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


def dropout_key(*parts: int) -> int:
    """32 bits from whole numbers such as (seed, step)."""
    key = 0
    for part in parts:
        key = _mix(key ^ (part & _MASK))
        key = _mix((key + _GOLDEN) & _MASK)
    return key


def keep_mask(
    segment: Segment, linear_number: int, num_columns: int, device: torch.device
) -> Tensor:
    """(rows of the segment, `num_columns`) bool: the elements that dropout leaves."""
    key = dropout_key(segment.dropout_key, linear_number)
    end_token = segment.first_token + segment.end_row - segment.first_row
    tokens_T = torch.arange(segment.first_token, end_token, dtype=torch.int64, device=device)
    columns_I = torch.arange(num_columns, dtype=torch.int64, device=device)
    row_T = _mix_tensor(tokens_T ^ key)
    bits_TI = _mix_tensor((row_T[:, None] + columns_I * _GOLDEN) & _MASK)
    return bits_TI >= int(segment.dropout * 2**32)


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
