"""Numbers of a Gluon kernel that runs without a card: blocks of them, and where they lie."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Block", "Pointer", "bare", "load", "store"]


class Block:
    """Numbers, or one number."""

    def __init__(self, v: Tensor) -> None:
        self._v = v

    @property
    def v(self) -> Tensor:
        return self._v

    @property
    def dtype(self) -> torch.dtype:
        return self.v.dtype

    def to(self, dtype: torch.dtype) -> "Block":
        return Block(self.v.to(dtype))

    def reshape(self, shape: Sequence[int]) -> "Block":
        return Block(self.v.reshape(list(shape)))

    def permute(self, *order: int) -> "Block":
        return Block(self.v.permute(*order))

    def split(self) -> tuple["Block", "Block"]:
        left, right = self.v.unbind(-1)
        return Block(left), Block(right)

    def __index__(self) -> int:
        return int(self.v)

    def __bool__(self) -> bool:
        return bool(self.v)


def bare(value: Any) -> Any:
    return value.v if isinstance(value, Block) else value


def _lift(name: str) -> Callable[[Any, Any], Any]:
    def operate(self: Block, other: Any) -> Any:
        if isinstance(other, Pointer):
            return NotImplemented
        if name == "__floordiv__" or name == "__rfloordiv__":
            one, two = (self.v, bare(other)) if name == "__floordiv__" else (bare(other), self.v)
            one = torch.as_tensor(one)
            return Block(torch.div(one, two, rounding_mode="trunc"))
        return Block(getattr(self.v, name)(bare(other)))

    return operate


_BOTH_WAYS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or")
for _name in (
    *_BOTH_WAYS,
    *(f"r{name}" for name in _BOTH_WAYS),
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
):
    setattr(Block, f"__{_name}__", _lift(f"__{_name}__"))
setattr(Block, "__neg__", lambda self: Block(-self.v))  # noqa: B010
setattr(Block, "__hash__", None)  # noqa: B010


class Pointer:
    def __init__(self, base: Tensor, offset: Any = 0) -> None:
        self.base, self.offset = base, offset

    def __add__(self, other: Any) -> "Pointer":
        return Pointer(self.base, bare(other) + self.offset)

    def places(self) -> Tensor:
        return torch.as_tensor(self.offset, dtype=torch.int64)

    def flat(self) -> Tensor:
        """All that lies behind the tensor's first element."""
        size = self.base.untyped_storage().nbytes() // self.base.element_size()
        offset = self.base.storage_offset()
        return self.base.as_strided((size - offset,), (1,), offset)


def load(at: Pointer, mask: Any = None, other: Any = 0) -> Block:
    places, flat = at.places(), at.flat()
    if mask is None:
        return Block(flat[places])
    mask, places = torch.broadcast_tensors(torch.as_tensor(bare(mask)), places)
    found = torch.full(places.shape, other, dtype=flat.dtype)
    found[mask] = flat[places[mask]]
    return Block(found)


def store(at: Pointer, value: Any, mask: Any = None) -> None:
    places, flat = at.places(), at.flat()
    values = torch.as_tensor(bare(value)).to(flat.dtype)
    chosen = torch.as_tensor(True if mask is None else bare(mask))
    chosen, places, values = torch.broadcast_tensors(chosen, places, values)
    flat[places[chosen]] = values[chosen]
