"""What an executor asks of the process that it is in."""

import gc
import os
from weakref import WeakSet

import torch

__all__ = ["pin_by_many_threads", "spare_what_lives", "take_back_what_is_spared"]

_THREADS = 16  # more brought nothing on an H100's host
_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
_spared = WeakSet[object]()  # backbones


def pin_by_many_threads() -> None:
    """Page-locked memory, into which adapters are copied, is touched first by threads side by side.

    By one it comes at 1.5 GB/s, and a report of 15 jobs that are all at their best asks for 1.1 GB.
    Whoever has settled that in the environment is obeyed.
    """
    given = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    if "pinned_" in given:
        return
    threads = min(_THREADS, len(os.sched_getaffinity(0)))
    ours = f"pinned_use_cuda_host_register:True,pinned_num_register_threads:{threads}"
    # Whatever is left out goes back to its default.
    torch._C._accelerator_setAllocatorSettings(f"{given},{ours}" if given else ours)


def spare_what_lives(backbone: object) -> None:
    """Collections of cycles pass over all that is there now: a backbone, its data, and all modules
    are millions of objects, and each full collection looked at them for 0.3 s."""
    _spared.add(backbone)
    gc.freeze()


def take_back_what_is_spared() -> None:
    """Collections look at everything again: an executor that has stopped may live on in cycles, and
    its backbone with it. Where no backbone lives on there is nothing to be found."""
    gc.unfreeze()
    if len(_spared):
        gc.collect()
