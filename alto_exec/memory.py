"""How much a device can hold, as the policy's linear form (paper, appendix A.3, with rank)."""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch

from alto_exec.bank import AdapterBank
from alto_exec.data.samples import Sample
from alto_exec.frozen_model import FrozenModel
from alto_exec.residence import Progress, Resident
from alto_exec.step import train_pass
from alto_policy.memory import MemoryModel
from alto_policy.types import Hyperparameters, Job, JobId

__all__ = ["measured_memory_model", "memory_model"]

_MARGIN = 0.9  # of the memory; the paper keeps a margin too and gives no value
_GRADIENTS = 2  # an activation and, in the backward pass, its gradient
_LOGITS_COPIES = 3  # logits, their softmax and their gradient, fp32
_PROBES = (1, 5)  # sequences in the two passes that are measured
_PROBE_RANK = 8
_SAFETY = 1.02  # of what is measured: allocations are rounded up


def memory_model(backbone: FrozenModel, bank: AdapterBank) -> MemoryModel:
    """Counted from the shapes: every adapted linear keeps its input and makes its output.

    The count takes all tokens for targets, so it errs on the safe side.
    """
    activations = sum(s.inputs + s.outputs for s in bank.shapes) * backbone.dtype.itemsize
    return MemoryModel(
        capacity=int(_MARGIN * _usable_bytes(backbone.device)),
        fixed=backbone.num_bytes,
        per_rank=bank.bytes_per_rank,
        per_token=_GRADIENTS * activations + _LOGITS_COPIES * 4 * backbone.vocabulary_size,
        per_rank_token=2 * len(bank.shapes) * backbone.dtype.itemsize,
    )


def measured_memory_model(
    backbone: FrozenModel, bank: AdapterBank, samples: Sequence[Sample]
) -> MemoryModel:
    """From the peaks of two passes over the longest samples, on a CUDA device."""
    counted = memory_model(backbone, bank)
    longest = max(samples, key=lambda sample: len(sample.tokens))
    peaks = [_peak_bytes(backbone, bank, longest, count) for count in _PROBES]
    tokens = [count * len(longest.tokens) for count in _PROBES]
    slope = (peaks[1] - peaks[0]) / (tokens[1] - tokens[0])
    per_token = max(1.0, slope - _PROBE_RANK * counted.per_rank_token)
    kept = bank.num_rows * bank.bytes_per_rank
    fixed = peaks[0] - slope * tokens[0] - kept
    return replace(
        counted,
        fixed=int(_SAFETY * max(fixed, backbone.num_bytes)),
        per_token=int(_SAFETY * per_token),
    )


def _peak_bytes(
    backbone: FrozenModel, bank: AdapterBank, longest: Sample, num_sequences: int
) -> int:
    h = Hyperparameters(rank=_PROBE_RANK, learning_rate=0.0, batch_size=num_sequences)
    job = Job(id=JobId("probe"), hyperparameters=h, steps=1, reports=1)
    slot = bank.join(bank.fresh(_PROBE_RANK, seed=0))
    torch.cuda.reset_peak_memory_stats(backbone.device)
    train_pass(backbone, bank, [longest], [Resident(job, slot, Progress())])
    bank.leave(slot)
    return torch.cuda.max_memory_allocated(backbone.device)


def _usable_bytes(device: torch.device) -> int:
    """What this process holds already counts as usable: the form has it under `fixed`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
