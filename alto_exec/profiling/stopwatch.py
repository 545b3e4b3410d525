"""Seconds of work on a device: warmed up, each run waited for, the median of several."""

import time
from collections.abc import Callable
from statistics import median

import torch

__all__ = ["median_seconds"]

_LEAST_REPEATS, _MOST_SECONDS = 3, 1.5  # of repeats, once there are enough


def median_seconds(
    work: Callable[[], object], device: torch.device, *, repeats: int, warm_up: int = 1
) -> float:
    seconds: list[float] = []
    for run in range(warm_up + repeats):
        if run >= warm_up + _LEAST_REPEATS and sum(seconds[warm_up:]) > _MOST_SECONDS:
            break
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[warm_up:])
