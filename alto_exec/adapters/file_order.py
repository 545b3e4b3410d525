"""Adapters in the order of their files: of each linear A (r, inputs) and B (outputs, r).

The bank has rows of all linears. Layers are alike, so a matrix is put in order for many of them at
once; suffixes as there, and L layers, N numbers of one of them.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank

__all__ = ["begin_copy", "in_file_order", "weights_of"]

_MOST_BYTES = 1 << 26  # on the device beside what it holds, unless a layer has more


def begin_copy(bank: AdapterBank, rows: slice, into: Tensor | None = None) -> Tensor:
    """A job's adapter in main memory, there when the device has come to it; over an earlier copy,
    if one is given. A GPU puts it in order on the way, (L, N), where a processor would take a
    second for half a gigabyte; else it is (r, C).
    """
    value_rC = bank.value_RC.detach()[rows]
    if value_rC.device.type != "cuda":
        return value_rC.clone() if into is None else into.copy_(value_rC)
    layers = bank.num_alike_layers
    width = value_rC.numel() // layers
    if into is None:
        into = torch.empty(layers, width, dtype=value_rC.dtype, pin_memory=True)
    some = max(1, _MOST_BYTES // (width * value_rC.element_size()))
    for first in range(0, layers, some):
        part = slice(first, min(first + some, layers))
        into[part].copy_(_ordered(bank, value_rC, part), non_blocking=True)
    return into


def weights_of(bank: AdapterBank, copy: Tensor) -> NDArray[np.floating]:
    """(L, N) of what `begin_copy` has made, once it is there."""
    on_gpu = bank.value_RC.device.type == "cuda"
    return copy.numpy() if on_gpu else in_file_order(bank, copy)


def _ordered(bank: AdapterBank, value_rC: Tensor, layers: slice) -> Tensor:
    """(L, N) of these layers, on the device of the value."""
    rank = len(value_rC)
    value_rLC = value_rC.view(rank, bank.num_alike_layers, -1)[:, layers]
    ordered_LN = value_rC.new_empty(value_rLC.shape[1], rank * value_rLC.shape[2])
    for columns, axes, place in _matrices(bank, rank):
        matrix_L = value_rLC[..., columns].permute(axes)
        ordered_LN[:, place].view(matrix_L.shape).copy_(matrix_L)
    return ordered_LN


def in_file_order(bank: AdapterBank, value_rC: Tensor) -> NDArray[np.floating]:
    """(L, N) of a value in main memory, beside training: in a few copies, in which other threads
    run. Each call that lets them run may wait for them longer than it takes, so none is made for
    each layer, nor one of PyTorch's, all of which do.
    """
    rank, layers = len(value_rC), bank.num_alike_layers
    value_rLC = value_rC.numpy().reshape(rank, layers, -1)
    ordered_LN = np.empty((layers, rank * value_rLC.shape[2]), value_rLC.dtype)
    for columns, axes, place in _matrices(bank, rank):
        matrix_L = value_rLC[..., columns].transpose(axes)
        ordered_LN[:, place].reshape(matrix_L.shape)[...] = matrix_L
    return ordered_LN


def _matrices(bank: AdapterBank, rank: int) -> Iterator[tuple[slice, tuple[int, ...], slice]]:
    """Of one layer: a matrix's columns in the bank, the order of (r, L, C) in a file, and its place
    there."""
    end = 0
    for a, b in islice(bank.columns, len(bank.shapes) // bank.num_alike_layers):
        for columns, axes in ((a, (1, 0, 2)), (b, (1, 2, 0))):
            start, end = end, end + rank * (columns.stop - columns.start)
            yield columns, axes, slice(start, end)
