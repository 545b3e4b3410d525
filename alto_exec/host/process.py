"""What an executor asks of the process that it is in."""

import gc
import logging
import os
from collections.abc import Iterable
from threading import Thread
from weakref import WeakSet

import torch

__all__ = [
    "keep_the_order_of_sums",
    "multiply_with",
    "pin_ahead",
    "pin_by_many_threads",
    "spare_what_lives",
    "take_back_what_is_spared",
    "unpin_what_is_free",
]

log = logging.getLogger(__name__)

_THREADS = 16  # more brought nothing on an H100's host
_SHARE_OF_HOST = 16  # one part of so many of its memory is page-locked ahead at most
_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
_spared = WeakSet[object]()  # backbones


def keep_the_order_of_sums() -> None:
    """Before this process multiplies for the first time, when MKL looks: rows get the same bits
    whatever rows stand beside them and wherever they lie in memory.

    Without AVX-512 nearly every number of rows else adds up in an order of its own. Whoever has
    settled that in the environment is obeyed; a process without MKL looks at nothing.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def multiply_with(threads: int) -> None:
    """So many threads, and sums in an order that is kept."""
    torch.set_num_threads(threads)
    keep_the_order_of_sums()


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


def pin_ahead(sizes: Iterable[int], device: torch.device) -> Thread:
    """Page-locked memory of so many bytes each, taken beside what this process does meanwhile.

    PyTorch keeps it for copies of these sizes, the best adapters of first reports among them, which
    waited for it between 9 and 40 ms each.
    """

    def pin(left: int) -> None:
        held = []
        try:
            with torch.cuda.device(device):
                for size in sizes:
                    left -= 1 << (size - 1).bit_length()  # as PyTorch rounds it
                    if left < 0:
                        break
                    held.append(torch.empty(size, dtype=torch.uint8, pin_memory=True))
        except RuntimeError as error:
            log.warning("page-locked memory for %d copies ahead, no more: %s", len(held), error)

    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    thread = Thread(target=pin, args=(host // _SHARE_OF_HOST,), name="pinning")
    thread.start()
    return thread


def unpin_what_is_free() -> None:
    """For whoever is about to fork: a process that is forked gets a copy of what is page-locked."""
    if torch.cuda.is_available():
        torch._C._host_emptyCache()


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
