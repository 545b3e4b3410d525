"""What the device can do at best: a large copy, and matrix products of a large model's linears."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from alto_exec.profiling.stopwatch import median_seconds
from alto_runs.profile import CopyRow, GemmRow, Machine

__all__ = ["copy_row", "gemm_rows"]

_COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}  # bytes: several times any cache
# Tokens, inputs and outputs.
_PRODUCTS = {
    "cuda": ((8192, 4096, 4096), (8192, 4096, 14_336), (8192, 14_336, 4096)),
    "cpu": ((256, 576, 576), (256, 576, 1536), (256, 1536, 576)),
}
_IN_A_ROW = {"cuda": 10, "cpu": 1}  # so that no launch is waited for


def copy_row(machine: Machine, device: torch.device) -> CopyRow:
    source = torch.ones(_COPIED[device.type] // 4, device=device)
    seconds = _seconds(partial(torch.empty_like(source).copy_, source), device)
    return CopyRow(machine=machine, bytes_per_second=2 * source.nbytes / seconds)


def gemm_rows(machine: Machine, device: torch.device, dtype: torch.dtype) -> Iterator[GemmRow]:
    for tokens, inputs, outputs in _PRODUCTS[device.type]:
        x, weight = _random(tokens, inputs, device, dtype), _random(outputs, inputs, device, dtype)
        product = partial(torch.mm, x, weight.T, out=x.new_empty(tokens, outputs))
        yield GemmRow(
            machine=machine,
            dtype=str(dtype).removeprefix("torch."),
            tokens=tokens,
            inputs=inputs,
            outputs=outputs,
            seconds=_seconds(product, device),
        )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    count = _IN_A_ROW[device.type]

    def in_a_row() -> None:
        for _ in range(count):
            work()

    return median_seconds(in_a_row, device, repeats=5) / count


def _random(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Not zeros, which some cards multiply faster."""
    return torch.randn(rows, columns, device=device, dtype=dtype)
