"""Scratch memory starts as NaN; the interpreter does what a card does, and changes its language
once a launch."""

from collections.abc import Iterator
from functools import cache
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
def spare_the_interpreter() -> Iterator[None]:
    """Its language is not changed again at each call of a function from a kernel, whose launch has
    done it; sums of integers are computed once and not again in 64 bits, as on a card; and which
    of NumPy's types is one of Triton's is looked up once. These were half of a test's time."""
    own = vars(interpreter)
    change: Any = own["_patch_lang"]
    look: Any = own["_get_np_dtype"]
    known = cache(look)

    def changed(function: Any) -> Any:
        values = function.__globals__.values()
        seen = [value for value in values if any(value is module for module in (tl, tl.core))]
        if any(tl.core.is_builtin(module.load) for module in seen):
            return change(function)
        return None  # nobody asks at a call

    def looked(dtype: Any) -> Any:
        return look(dtype) if dtype.scalar.is_ptr() else known(dtype.scalar)

    options = interpreter.InterpreterOptions(sanitize_overflow=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", changed)
        patch.setattr(interpreter, "_get_np_dtype", looked)
        patch.setattr(own["interpreter_builder"], "options", options)
        yield


def _poisoned(tensor: Tensor) -> Tensor:
    return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor
