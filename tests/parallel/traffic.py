"""Counts what goes over process groups, below everything that the product could count itself."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Traffic"]


@dataclass(slots=True)
class _Counts:
    calls: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)  # in the tensors that are handed in


class Traffic(TorchDispatchMode):
    """Every collective of PyTorch is an operator, and every operator comes by here."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = _Counts()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "c10d":
            name = func.name().removeprefix("c10d::")
            self.counts.calls[name] += 1
            self.counts.numbers[name] += sum(t.numel() for t in _tensors(args))
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
