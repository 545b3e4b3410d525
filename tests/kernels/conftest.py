"""Scratch memory of the kernels starts as NaN."""

from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def poison_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels must write every element they own."""
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        return _poisoned(empty(*args, **kwargs))

    def new_poisoned(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _poisoned(new_empty(self, *args, **kwargs))

    monkeypatch.setattr(torch, "empty", poisoned)
    monkeypatch.setattr(torch.Tensor, "new_empty", new_poisoned)


def _poisoned(tensor: Tensor) -> Tensor:
    return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor
