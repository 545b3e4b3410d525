"""Work that makes many objects that live on, and hardly any that refer to each other in a ring."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


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
