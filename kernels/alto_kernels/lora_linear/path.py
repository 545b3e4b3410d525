"""How a group is computed. Chosen openly, from what the tensors are; never by catching an error."""

from collections.abc import Iterable
from enum import Enum

import torch
from torch import Tensor

from alto_kernels.lora_linear.plan import AdaptedGroup

__all__ = ["Path", "has_kernels", "path_alone_for", "path_for"]

_ALIGNMENT = 16  # bytes; what the hardware's tile copies ask of addresses and row strides
_VECTOR = 8  # columns that the kernels load at once
_COLUMNS = 64  # narrowest tile; the members of a group meet at its multiples


class Path(Enum):
    COMPOSED = "composed"  # PyTorch's products, a few for each segment
    ADDED = "added"  # the adapters' part first, to which cuBLAS adds the frozen product
    FUSED = "fused"  # our own product with the adapters' part in it
    # Without the frozen product, which is found elsewhere: the weight is not read.
    COMPOSED_ALONE = "composed-alone"
    KERNELS_ALONE = "kernels-alone"

    @property
    def is_alone(self) -> bool:
        return self in (Path.COMPOSED_ALONE, Path.KERNELS_ALONE)

    @property
    def is_composed(self) -> bool:
        return self in (Path.COMPOSED, Path.COMPOSED_ALONE)


def path_for(x_TI: Tensor, group: AdaptedGroup) -> Path:
    """COMPOSED off the GPU and for wider types than 16 bits; else the fastest that can run."""
    if not _can_run_kernels(x_TI, group):
        return Path.COMPOSED
    operands = (x_TI, group.weight_OI, group.a_RMI[:, 0], group.b_RO)
    if not all(_is_aligned(t) for t in operands):
        return Path.ADDED
    meet = all(size % _COLUMNS == 0 for size in group.outputs[:-1])
    return Path.FUSED if meet else Path.ADDED


def path_alone_for(x_TI: Tensor, group: AdaptedGroup) -> Path:
    """The same without the frozen product."""
    return Path.KERNELS_ALONE if _can_run_kernels(x_TI, group) else Path.COMPOSED_ALONE


def has_kernels(dtype: torch.dtype, sizes: Iterable[int]) -> bool:
    """Whether linears of these inputs and outputs run in our kernels on a GPU."""
    return dtype.itemsize == 2 and not any(size % _VECTOR for size in sizes)


def _can_run_kernels(x_TI: Tensor, group: AdaptedGroup) -> bool:
    if x_TI.device.type != "cuda" or group.b_RO.dtype != x_TI.dtype:
        return False
    return has_kernels(x_TI.dtype, (group.inputs, *group.outputs))


def _is_aligned(tensor: Tensor) -> bool:
    strides = sorted(tensor.stride())
    rows = strides[1] * tensor.element_size()
    return (
        strides[0] == 1
        and rows % _ALIGNMENT == 0
        and tensor.data_ptr() % _ALIGNMENT == 0
        and tensor.dtype in (torch.bfloat16, torch.float16, torch.float32)
    )
