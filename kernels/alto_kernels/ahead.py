"""Kernels compiled before they are needed, side by side: one after another they take a minute."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from triton.runtime._async_compile import AsyncCompileMode, active_mode
from triton.runtime.jit import JITFunction

__all__ = ["compiled_ahead"]


@contextmanager
def compiled_ahead(threads: int) -> Iterator[None]:
    """What is launched inside, by whichever thread of the process, is compiled by so many threads
    and not run: what it would have written holds anything. At the end all of it is compiled.

    Kernels that are interpreted run as ever.
    """
    run: Any = JITFunction.run

    def compiled(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        # Autograd launches from a thread of its own, for which no mode was set.
        before = active_mode.set(mode)
        try:
            return run(kernel, *arguments, grid=grid, warmup=True, **options)
        finally:
            active_mode.reset(before)

    with ThreadPoolExecutor(threads) as pool, AsyncCompileMode(pool) as mode:
        setattr(JITFunction, "run", compiled)  # noqa: B010 - a method is none of its types
        try:
            yield
        finally:
            setattr(JITFunction, "run", run)  # noqa: B010
