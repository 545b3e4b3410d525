"""How small tables of the host come to a device."""

import torch
from torch import Tensor

__all__ = ["copied"]


def copied(table: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what that is at; the table itself where it is there."""
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table
