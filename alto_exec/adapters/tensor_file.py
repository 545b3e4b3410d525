"""Tensors as a safetensors file, handed out in parts.

The library's own `save` copies everything twice while it keeps other threads from running; parts
are written as they lie in memory, and beside training.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

__all__ = ["file_header", "file_parts"]

_NAMES = {torch.float32: "F32", torch.float64: "F64", torch.uint8: "U8"}
_ALIGNMENT = 8


def file_parts(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """The header, then each tensor's bytes; they are in main memory (safetensors' README).

    Wide types come first: so all are aligned.
    """
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    shapes = ((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items())
    yield file_header(shapes, metadata)
    for tensor in tensors.values():
        yield tensor.contiguous().numpy().data.cast("B")


def file_header(
    shapes: Iterable[tuple[str, torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """Of a file in which the tensors lie one after another."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, dtype, shape in shapes:
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
