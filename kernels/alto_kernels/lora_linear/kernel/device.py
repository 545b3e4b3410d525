"""What launchers ask about a device."""

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
