"""What launchers ask about a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

_INTERPRETED_PROGRAMS = 3  # more than one, so that a program's walk over tiles is seen


@lru_cache
def num_programs(device: torch.device) -> int:
    """Programs of a persistent kernel: one for each multiprocessor."""
    if device.type != "cuda":
        return _INTERPRETED_PROGRAMS
    return torch.cuda.get_device_properties(device).multi_processor_count


@lru_cache
def whole_numbers(rows: tuple[tuple[int, ...], ...], device: torch.device) -> torch.Tensor:
    """A small int32 table, copied to the device once."""
    return torch.tensor(rows, dtype=torch.int32).to(device)


@lru_cache
def is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


@lru_cache
def begins_early(device: torch.device) -> bool:
    """Whether a launch may begin ahead of the end of the one before (and then waits inside)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9


@contextmanager
def first_in_line(device: torch.device) -> Iterator[None]:
    """What is launched inside may run beside what follows it, and takes the multiprocessors first.

    What follows fills those that it leaves alone. `join` ends this.
    """
    if device.type == "cuda":
        _urgent_stream(device).wait_stream(torch.cuda.current_stream(device))
    with next_in_line(device):
        yield


@contextmanager
def next_in_line(device: torch.device) -> Iterator[None]:
    """More of the line that `first_in_line` began, which waits for nothing that came between."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.stream(_urgent_stream(device)):
        yield


def mark(device: torch.device) -> torch.cuda.Event | None:
    """This point among the launches of a line, for another that is to `follow` it."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def follow(point: torch.cuda.Event | None, device: torch.device) -> None:
    if point is not None:
        torch.cuda.current_stream(device).wait_event(point)


def join(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).wait_stream(_urgent_stream(device))


@lru_cache
def _urgent_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=-1)
