"""How every figure here is timed: CUDA graphs, a cold cache, functions in turn, medians.

A graph hides the launch gaps, which belong to the program around a kernel. The flush keeps one run
from reading what the last one left in the cache; it reads, since a cache full of writes would
charge their way home to what runs next. Taking turns spreads the drift of the card's clock over all
functions, so their ratio is that of one moment.
"""

from collections.abc import Callable, Mapping
from statistics import median

import torch

__all__ = ["medians"]

_FLUSH_BYTES = 256 << 20  # several times the cache


def medians(
    functions: Mapping[str, Callable[[], object]], rounds: int = 25, *, graphs: bool = True
) -> dict[str, float]:
    """Milliseconds of each function; without `graphs` they are launched as they are."""
    for function in functions.values():
        function()  # compiles, and makes the libraries' handles
    torch.cuda.synchronize()
    runs = {name: _captured(f) if graphs else f for name, f in functions.items()}
    flush = torch.zeros(_FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {n: [] for n in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.sum()
            start.record()
            run()
            end.record()
            events[name].append((start, end))
    torch.cuda.synchronize()
    return {n: median(start.elapsed_time(end) for start, end in e) for n, e in events.items()}


def _captured(function: Callable[[], object]) -> Callable[[], object]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay
