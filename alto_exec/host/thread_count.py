"""How many threads a run on a CPU trains with, timed once when it begins."""

import os
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import linear, silu

from alto_exec.host.process import keep_the_order_of_sums

__all__ = ["best_thread_count", "clearly_fastest"]

_ROUNDS, _LEAST_ROUNDS = 8, 3
_SECONDS = 1.0  # after which no round begins; on busy cores a turn may take a second itself
_CLEARLY = 0.8  # of the time with fewer threads; on two idle cores it is 0.55
_ROWS = (512, 64, 64)  # some regions of threads are long, and many are short


def best_thread_count() -> int:
    """With other processes on the same cores, two threads may take ten times as long as one: each
    operation waits for the thread that was put aside."""
    available = len(os.sched_getaffinity(0))
    keep_the_order_of_sums()
    before = torch.get_num_threads()
    layer = _Layer()

    def seconds_with(threads: int) -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        layer.run()
        return time.perf_counter() - start

    try:
        return clearly_fastest(sorted({1, available // 2, available} - {0}), seconds_with)
    finally:
        torch.set_num_threads(before)


def clearly_fastest(counts: Sequence[int], seconds_with: Callable[[int], float]) -> int:
    """Of ascending `counts`, by turns that are taken alternately, so that all of them meet the same
    neighbours. Their sum counts, but for the worst of each: the shortest only tells of a moment in
    which the neighbours slept. More threads are taken only where they are clearly faster, since
    they lose many times more when neighbours come than they gain while nobody does.
    """
    turns: dict[int, list[float]] = {count: [] for count in counts}
    for count in counts:
        seconds_with(count)  # threads are made, and code is loaded
    for rounds in range(_ROUNDS):
        if rounds >= _LEAST_ROUNDS and sum(map(sum, turns.values())) > _SECONDS:
            break
        for count in counts:
            turns[count].append(seconds_with(count))
    seconds = {count: sum(sorted(each)[:-1]) for count, each in turns.items()}
    best = counts[0]
    for count in counts[1:]:
        if seconds[count] < _CLEARLY * seconds[best]:
            best = count
    return best


class _Layer:
    """What passes are made of: products of a small model's size with small operations between."""

    def __init__(self) -> None:
        self._inputs = [torch.randn(rows, 576) for rows in _ROWS]
        self._up, self._down = torch.randn(1536, 576), torch.randn(576, 1536)
        self._a, self._b = torch.randn(16, 576), torch.randn(576, 16)

    def run(self) -> None:
        for x in self._inputs:
            wide = silu(linear(x, self._up))
            linear(wide, self._down).add_(linear(linear(x, self._a), self._b)).add_(x)
