"""Tensors as a safetensors file, handed out in parts.

The library's own `save` copies everything twice while it keeps other threads from running; parts
are written as they lie in memory, and beside training.
"""

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

__all__ = ["file_parts"]

_NAMES = {torch.float32: "F32", torch.float64: "F64", torch.uint8: "U8"}
_ALIGNMENT = 8


def file_parts(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """The header, then each tensor's bytes; they are in main memory (safetensors' README).

    Wide types come first: so all are aligned.
    """
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for tensor in tensors.values():
        yield tensor.contiguous().numpy().data.cast("B")
