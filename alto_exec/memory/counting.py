"""How much a device can hold, counted from shapes."""

import os

import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.frozen_model import FrozenModel
from alto_policy.memory import MemoryModel

__all__ = ["exchanged_bytes", "memory_model"]

_MARGIN = 0.9  # of the memory; the paper keeps a margin too and gives no value
_GRADIENTS = 2  # an activation and, in the backward pass, its gradient
_LOGITS_COPIES = 3  # logits, their softmax and their gradient, fp32


def memory_model(
    backbone: FrozenModel, bank: AdapterBank, capacity: int | None = None
) -> MemoryModel:
    """Counted from the shapes: every adapted linear keeps its input and makes its output.

    The count takes all tokens for targets, so it errs on the safe side. `capacity` bytes may be
    used, or what the device has but for a margin.
    """
    activations = sum(s.inputs + s.outputs for s in bank.shapes) * backbone.dtype.itemsize
    return MemoryModel(
        capacity=int(_MARGIN * _usable_bytes(backbone.device)) if capacity is None else capacity,
        fixed=backbone.num_bytes + exchanged_bytes(backbone),
        per_rank=bank.bytes_per_rank,
        per_token=_GRADIENTS * activations + _LOGITS_COPIES * 4 * backbone.vocabulary_size,
        per_rank_token=2 * len(bank.shapes) * backbone.dtype.itemsize,
    )


def exchanged_bytes(backbone: FrozenModel) -> int:
    """Of the other ranks' tokens, whatever those train."""
    return backbone.exchanged_bytes if isinstance(backbone, ShardedDecoder) else 0


def _usable_bytes(device: torch.device) -> int:
    """What this process holds already counts as usable: the form has it under `fixed`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
