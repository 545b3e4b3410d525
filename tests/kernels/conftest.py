"""Scratch memory starts as NaN; the interpreter changes its language once a launch."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter


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


@pytest.fixture(autouse=True, scope="session")
def change_the_language_once() -> Iterator[None]:
    """Not again at each call of a function from a kernel, whose launch has done it: that was a
    sixth to a third of a test's time."""
    change: Any = vars(interpreter)["_patch_lang"]

    def changed(function: Any) -> Any:
        values = function.__globals__.values()
        seen = [value for value in values if any(value is module for module in (tl, tl.core))]
        if any(tl.core.is_builtin(module.load) for module in seen):
            return change(function)
        return None  # nobody asks at a call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", changed)
        yield


def _poisoned(tensor: Tensor) -> Tensor:
    return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor
