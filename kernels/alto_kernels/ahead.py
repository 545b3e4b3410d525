"""Kernels compiled before they are needed, side by side: one after another they take a minute."""

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from typing import Any

from triton.runtime._async_compile import AsyncCompileMode, active_mode
from triton.runtime.jit import JITFunction

__all__ = ["compiled_ahead"]

_MOST_SECONDS = 120.0  # then whoever launches a kernel compiles it
_LOOK_SECONDS = 0.01


@contextmanager
def compiled_ahead(processes: int) -> Iterator[None]:
    """What is launched inside, by whichever thread of this process, is noted and not run: what it
    would have written holds anything. Then so many processes compile all of it into Triton's cache.

    Kernels that are interpreted run as ever. The processes are forked, since threads would wait for
    one another: a tenth of a compilation is Python. They touch no device.
    """
    run: Any = JITFunction.run

    def noted(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        # Autograd launches from a thread of its own, for which no mode was set.
        before = active_mode.set(mode)
        try:
            return run(kernel, *arguments, grid=grid, warmup=True, **options)
        finally:
            active_mode.reset(before)

    work = _Work()
    with AsyncCompileMode(work) as mode:
        setattr(JITFunction, "run", noted)  # noqa: B010 - a method is none of its types
        try:
            yield
        finally:
            setattr(JITFunction, "run", run)  # noqa: B010
            work.finish(processes)


class _Work(Executor):
    """Takes what is to be compiled, and does nothing until it is told to finish."""

    def __init__(self) -> None:
        self._compilations: list[tuple[Callable[[], Any], Future[Any]]] = []

    def submit(self, compile: Callable[[], Any], /) -> Future[Any]:  # type: ignore[override]
        future: Future[Any] = Future()
        self._compilations.append((compile, future))
        return future

    def finish(self, processes: int) -> None:
        """Here as well at last, which finds them in the cache, or tells what is wrong with them."""
        compilations = [compile for compile, _ in self._compilations]
        count = min(processes, len(compilations))
        if count > 1:
            _wait_for([_fork(compilations[first::count]) for first in range(count)])
        for compile, future in self._compilations:
            try:
                future.set_result(compile())
            except Exception as error:  # noqa: BLE001 - told to whoever launches it
                future.set_exception(error)


def _fork(compilations: Sequence[Callable[[], Any]]) -> int:
    """The process that does these, and ends."""
    with warnings.catch_warnings():
        # Python warns of threads whose locks the child may wait for: PyTorch's and CUDA's, which it
        # does not call. Data loaders of PyTorch are forked as well.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        try:
            for compile in compilations:
                with suppress(Exception):  # the process that launches it meets it again
                    compile()
        finally:
            os._exit(0)
    return process


def _wait_for(processes: Sequence[int]) -> None:
    left, end = set(processes), time.monotonic() + _MOST_SECONDS
    while left:
        for process in tuple(left):
            if _has_ended(process):
                left.remove(process)
        if time.monotonic() > end:
            for process in left:
                os.kill(process, signal.SIGKILL)
        time.sleep(_LOOK_SECONDS)


def _has_ended(process: int) -> bool:
    try:
        return os.waitpid(process, os.WNOHANG)[0] != 0
    except ChildProcessError:  # whoever is told of ended children was faster
        return True
