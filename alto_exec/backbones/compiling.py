"""What an executor will launch, compiled before its first pass.

Which kernel a launch takes depends on the ranks that are side by side, and at a few sizes on how
many rows there are. So passes of each kind are launched through one layer, and nothing of them is
run. Otherwise a kernel is compiled when it is first met: a minute of a search's first passes, and
seconds later on, where jobs that leave change the ranks that are left.

On a machine that has done so before kernels are read from Triton's cache as they are met, which is
sooner than all of them.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import torch
import triton
from triton import knobs

from alto_exec.adapters.bank import AdapterBank, Slot, random_state
from alto_exec.adapters.optimizer import update_of
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Sample
from alto_exec.host.process import unpin_what_is_free
from alto_exec.passes.batch import Share, pack
from alto_exec.passes.weighing import FixedWeights, loss_dtype
from alto_kernels.adamw import adamw
from alto_kernels.ahead import compiled_ahead
from alto_kernels.lora_linear import rank_step
from alto_policy.types import Task
from alto_runs.versions import source_digest

__all__ = ["compile_passes", "mixes_of"]

_JOBS = (1, 2, 4, 8, 32)  # side by side, until jobs of all kinds are among them
# What kernels are chosen by changes between these sizes, and not beyond them.
_ROWS = (1_024, 2_048, 3_072, 4_096, 6_144, 8_192, 12_288, 16_384)


def mixes_of(ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Ranks of jobs that are side by side: of all that `ranks` can make, one mix for each highest
    rank and each step in which kernels take ranks, with few jobs if that can be."""
    found: dict[tuple[int, int], tuple[int, ...]] = {}
    chosen = sorted(set(ranks))
    for highest in chosen:
        for jobs, other in product(_JOBS, chosen[: chosen.index(highest) + 1]):
            for others in range(jobs):
                mix = (highest,) * (jobs - others) + (other,) * others
                found.setdefault((highest, rank_step(mix)), mix)
    return tuple(found.values())


def compile_passes(backbone: Decoder, bank: AdapterBank, task: Task) -> None:
    """Training, evaluation and optimizer steps of any of the task's jobs, unless that was done here
    before. The bank is empty, and so it is afterwards. If memory runs out, what is left is compiled
    when it is met."""
    mark = _mark(backbone, bank, task)
    if mark.exists():
        return
    highest = max(job.hyperparameters.rank for job in task.jobs)
    slot = bank.join(random_state(bank, highest))
    unpin_what_is_free()
    try:
        with compiled_ahead(len(os.sched_getaffinity(0))):
            _take_steps(bank, slot, task)
            for shares in _batches(slot.first, task):
                _pass_through(backbone.of_one_layer(), bank, shares)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except torch.OutOfMemoryError:
        pass  # the next passes are smaller, or run out of memory for themselves
    finally:
        bank.leave(slot)
        bank.give_back(0)
    torch.cuda.empty_cache()


def _mark(backbone: Decoder, bank: AdapterBank, task: Task) -> Path:
    """A file in Triton's cache, named by all that decides what is compiled."""
    chosen = [job.hyperparameters for job in task.jobs]
    is_cuda = backbone.device.type == "cuda"
    decides = (
        source_digest("alto_exec", "alto_kernels"),
        torch.__version__,
        triton.__version__,
        torch.cuda.get_device_name(backbone.device) if is_cuda else "cpu",
        backbone.base_model,
        backbone.shapes,
        backbone.vocabulary_size,
        backbone.dtype,
        [(tensor.dtype, tensor.shape[1:]) for tensor in bank.memory.moments.tensors.values()],
        (bank.value_RC.dtype, bank.memory.shadow_RC.dtype),
        sorted({(h.rank, h.dropout, h.clip is None) for h in chosen}),
        len(chosen),
    )
    name = hashlib.sha256(repr(decides).encode()).hexdigest()[:24]
    return Path(knobs.cache.dir) / f"alto-{name}"


def _batches(first: int, task: Task) -> Iterator[tuple[Share, ...]]:
    """All shares read the same rows of the bank: where nothing is computed, none is in another's
    way."""
    chosen = [job.hyperparameters for job in task.jobs]
    yield (_share(None, 2),)
    for dropout in sorted({h.dropout for h in chosen}):
        for mix in mixes_of([h.rank for h in chosen]):
            few = [Slot(first, rank) for rank in mix]
            many = few * -(-len(chosen) // len(few))
            for slots, some in ((few, (0, *_ROWS)), (many, (0, _ROWS[-1]))):
                for rows in some:
                    length = max(2, rows // len(slots))
                    yield tuple(_share(slot, length, dropout) for slot in slots)


def _share(slot: Slot | None, length: int, dropout: float = 0.0) -> Share:
    sample = Sample((0,) * length, (False,) * (length - 1) + (True,))
    return Share((sample,), slot, dropout=dropout)


def _pass_through(layer: Decoder, bank: AdapterBank, shares: Sequence[Share]) -> None:
    batch = pack(shares, layer.device)
    if shares[0].slot is not None:
        weights_N = torch.ones(len(batch.targets_N), dtype=loss_dtype(layer.dtype))
        layer.train(bank, batch, FixedWeights(weights_N.to(layer.device)))
    with torch.no_grad():
        layer.loss_sums(bank, batch)


def _take_steps(bank: AdapterBank, slot: Slot, task: Task) -> None:
    for job in {job.hyperparameters.clip: job for job in task.jobs}.values():
        update = update_of(slot, job.hyperparameters, 0, job.steps)
        adamw(bank.rows(), [update], bank.value_RC.new_zeros(1))
