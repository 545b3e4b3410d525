"""Adapters in the order of their files: of each linear A (r, inputs) and B (outputs, r).

The bank has rows of all linears. Layers are alike, so a matrix is put in order for many of them at
once; suffixes as there, and L layers, N numbers of one of them.
"""

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
    layers, width = _num_layers(bank), value_rC.numel() // _num_layers(bank)
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
    all_layers, rank = _num_layers(bank), len(value_rC)
    value_rLC = value_rC.view(rank, all_layers, -1)[:, layers]
    ordered_LN = value_rC.new_empty(value_rLC.shape[1], rank * value_rLC.shape[2])
    end = 0
    for a, b in islice(bank.columns, len(bank.shapes) // all_layers):
        for matrix_L in (
            value_rLC[..., a].transpose(0, 1),
            value_rLC[..., b].permute(1, 2, 0),
        ):
            start, end = end, end + matrix_L[0].numel()
            ordered_LN[:, start:end].view(matrix_L.shape).copy_(matrix_L)
    return ordered_LN


def in_file_order(bank: AdapterBank, value_rC: Tensor) -> NDArray[np.floating]:
    """(L, N) of a value in main memory, beside training: in a few copies, in which other threads
    run. Each call that lets them run may wait for them longer than it takes, so none is made for
    each layer, nor one of PyTorch's, all of which do.
    """
    value, all_layers = value_rC.numpy(), _num_layers(bank)
    rank, columns = value.shape
    value_rLC = value.reshape(rank, all_layers, -1)
    ordered_LN = np.empty((all_layers, rank * columns // all_layers), value.dtype)
    end = 0
    for a, b in islice(bank.columns, len(bank.shapes) // all_layers):
        for matrix_L in (
            value_rLC[..., a].transpose(1, 0, 2),
            value_rLC[..., b].transpose(1, 2, 0),
        ):
            start, end = end, end + matrix_L[0].size
            ordered_LN[:, start:end].reshape(matrix_L.shape)[...] = matrix_L
    return ordered_LN


def _num_layers(bank: AdapterBank) -> int:
    """That are alike; one where they are not."""
    kinds = [(shape.inputs, shape.outputs, shape.joins) for shape in bank.shapes]
    period = next(n for n in range(1, len(kinds) + 1) if kinds == kinds[:n] * (len(kinds) // n))
    return len(kinds) // period
