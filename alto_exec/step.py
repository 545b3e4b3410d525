"""The training step: one fused pass over a batch of all resident jobs.

Every job brings its next sequences; one forward and one backward pass serve them all; a job whose
passes make up its optimizer step takes it."""

import math
from collections.abc import Sequence

import torch

from alto_exec.bank import AdapterBank
from alto_exec.batch import Share, pack
from alto_exec.data.order import batch_indices
from alto_exec.data.samples import Sample
from alto_exec.frozen_model import FrozenModel
from alto_exec.optimizer import update_of
from alto_exec.residence import Resident
from alto_kernels.adamw import Update, adamw
from alto_kernels.lora_linear import dropout_key

__all__ = ["train_pass"]


def train_pass(
    backbone: FrozenModel,
    bank: AdapterBank,
    samples: Sequence[Sample],
    residents: Sequence[Resident],
) -> int:
    """Train every resident on its next `batch_size` sequences; the number of tokens that took.

    A resident whose loss is not finite is marked lost and takes no step.
    """
    upcoming = [_step_samples(resident, samples) for resident in residents]
    shares = [_share(r, drawn) for r, drawn in zip(residents, upcoming, strict=True)]
    batch = pack(shares, backbone.device)

    # A job's loss is the mean over the target tokens of its own step, all passes of it together;
    # the batch's loss is the sum of the jobs' losses, so no job's gradient knows of another.
    counts = torch.tensor(
        [sum(sum(s.is_target) for s in drawn) for drawn in upcoming],
        dtype=torch.promote_types(backbone.dtype, torch.float32),
    )
    parts = list(batch.targets_per_share)
    weights_N = counts.reciprocal().repeat_interleave(torch.tensor(parts)).to(backbone.device)
    losses_N = backbone.train(bank, batch, weights_N).cpu()
    job_losses = torch.stack([part.sum() for part in losses_N.split(parts)]) / counts

    for resident, share, loss in zip(residents, shares, job_losses.tolist(), strict=True):
        resident.passes += 1
        resident.step_loss += loss
        resident.step_tokens += sum(len(s.tokens) for s in share.samples)
    complete = [r for r in residents if r.passes == r.job.hyperparameters.accumulation]
    for resident in complete:
        resident.is_lost = not math.isfinite(resident.step_loss)
    adamw(bank.rows(), [_update(resident) for resident in complete if not resident.is_lost])
    for resident in complete:
        _count_step(resident)
    return len(batch.tokens_T)


def _step_samples(resident: Resident, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """All sequences of the optimizer step under way."""
    h = resident.job.hyperparameters
    drawn = batch_indices(h.seed, resident.progress.step, h.samples_per_step, len(samples))
    return tuple(samples[index] for index in drawn)


def _share(resident: Resident, drawn: tuple[Sample, ...]) -> Share:
    h = resident.job.hyperparameters
    first = resident.passes * h.batch_size
    return Share(
        samples=drawn[first : first + h.batch_size],
        slot=resident.slot,
        scale=h.scale,
        dropout=h.dropout,
        dropout_key=dropout_key(h.seed, resident.progress.step),
        first_token=resident.step_tokens,
    )


def _update(resident: Resident) -> Update:
    job, step = resident.job, resident.progress.step
    return update_of(resident.slot, job.hyperparameters, step, job.steps)


def _count_step(resident: Resident) -> None:
    progress = resident.progress
    progress.step += 1
    progress.loss_sum += resident.step_loss
    progress.loss_steps += 1
    progress.report = None
    resident.passes, resident.step_loss, resident.step_tokens = 0, 0.0, 0
