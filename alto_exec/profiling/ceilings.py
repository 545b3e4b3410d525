"""What the device can do at best: a large copy, and the matrix products of a model's linears."""

from collections.abc import Iterator

import torch
from torch import Tensor

from alto_exec.profiling.stopwatch import median_seconds
from alto_runs.profile import CopyRow, GemmRow, Machine, ModelShape

__all__ = ["copy_row", "gemm_rows"]

_REPEATS = {"cuda": 15, "cpu": 5}
_COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}  # bytes: several times any cache
_TOKENS = {"cuda": 8192, "cpu": 256}


def copy_row(machine: Machine, device: torch.device) -> CopyRow:
    source = torch.ones(_COPIED[device.type] // 4, device=device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), device, repeats=_REPEATS[device.type])
    return CopyRow(machine=machine, bytes_per_second=2 * source.nbytes / seconds)


def gemm_rows(
    machine: Machine, shape: ModelShape, device: torch.device, dtype: torch.dtype
) -> Iterator[GemmRow]:
    """Each size of linear that the model has, once."""
    tokens = _TOKENS[device.type]
    for inputs, outputs in dict.fromkeys(shape.linears):
        x, weight = _random(tokens, inputs, device, dtype), _random(outputs, inputs, device, dtype)
        y = x.new_empty(tokens, outputs)
        seconds = median_seconds(
            lambda x=x, weight=weight, y=y: torch.mm(x, weight.T, out=y),  # type: ignore[misc]
            device,
            repeats=_REPEATS[device.type],
        )
        yield GemmRow(
            machine=machine,
            dtype=str(dtype).removeprefix("torch."),
            tokens=tokens,
            inputs=inputs,
            outputs=outputs,
            seconds=seconds,
        )


def _random(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Not zeros, which some cards multiply faster."""
    return torch.randn(rows, columns, device=device, dtype=dtype)
