"""Work that makes many objects that live on, and hardly any that refer to each other in a ring."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["leave_at_exit", "uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Without looks for rings of garbage: each would visit all objects that were ever made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()  # there and back: all counts as old, and is not looked through at once
            gc.unfreeze()
            gc.enable()


def leave_at_exit() -> None:
    """Have this process end without the last look for rings, which visits and takes apart all that
    a long trace has left; whatever had to be written is, by then."""
    atexit.register(gc.freeze)
