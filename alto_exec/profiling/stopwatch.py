"""Seconds of work on a device: warmed up, each run waited for, the median of several."""

import time
from collections.abc import Callable
from statistics import median

import torch

__all__ = ["median_seconds"]


def median_seconds(
    work: Callable[[], object], device: torch.device, *, repeats: int, warm_up: int = 1
) -> float:
    seconds = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[warm_up:])
