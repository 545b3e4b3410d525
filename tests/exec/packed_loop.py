"""Jobs trained by ALTO's step on one backbone; they join and leave as a test wants it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from alto_exec.adapters.bank import AdapterBank, AdapterState
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.samples import Example, Sample
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.passes.batch import Share, pack
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.objective import References
from alto_exec.passes.training import train_pass
from alto_policy.types import Hyperparameters, Job, JobId
from tests.exec.comparing import Trajectory
from tests.exec.tiny_models import TINY_MODELS, VOCABULARY_SIZE

__all__ = [
    "Kept",
    "PackedRun",
    "a_job",
    "named_views",
    "ragged_samples",
    "tiny_model",
    "train_packed",
]


def tiny_model(family: str) -> PreTrainedModel:
    """In the precision that new tensors have."""
    model: Any = TINY_MODELS[family]()[0]
    model.set_experts_implementation("eager")  # grouped products know no double precision
    return cast(PreTrainedModel, model.to(torch.get_default_dtype()))


def a_job(name: str = "job", steps: int = 4, **hyperparameters: Any) -> Job:
    given: dict[str, Any] = {"rank": 4, "alpha": 8.0, "learning_rate": 3e-3} | hyperparameters
    return Job(id=JobId(name), hyperparameters=Hyperparameters(**given), steps=steps, reports=1)


def ragged_samples(count: int = 24, seed: int = 0, longest: int = 24) -> list[Sample]:
    """Random tokens, of lengths from 2 on; the targets are the end of each sequence."""
    draw = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        length = int(draw.integers(2, longest + 1))
        first = int(draw.integers(1, length))
        tokens = tuple(int(t) for t in draw.integers(3, VOCABULARY_SIZE, length))
        samples.append(Sample(tokens, tuple(place >= first for place in range(length))))
    return samples


def named_views(bank: AdapterBank, value_rC: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The matrices, and the names under which PEFT keeps them."""
    for name, a_rI, b_rO in bank.matrices(value_rC):
        yield f"base_model.model.{name}.lora_A.weight", a_rI
        yield f"base_model.model.{name}.lora_B.weight", b_rO.T


@dataclass(frozen=True, slots=True)
class Kept:
    """A job that has left and may come back."""

    job: Job
    progress: Progress
    adapter: AdapterState


@dataclass(slots=True)
class PackedRun:
    samples: Sequence[Example]
    backbone: FrozenModel
    bank: AdapterBank
    residents: dict[JobId, Resident] = field(default_factory=dict)
    losses: dict[JobId, list[float]] = field(default_factory=dict)
    references: References | None = None
    tokens: int = 0  # of all passes

    @classmethod
    def of(
        cls,
        model: str | PreTrainedModel,
        samples: Sequence[Example],
        rows: int = 64,
        references: References | None = None,
    ) -> "PackedRun":
        """On a tiny model of a family, or on a model."""
        backbone = Backbone(tiny_model(model) if isinstance(model, str) else model)
        bank = AdapterBank(backbone.shapes, backbone.device, rows)
        return cls(samples, backbone, bank, references=references)

    def join(self, job: Job, kept: Kept | None = None) -> None:
        h = job.hyperparameters
        state = kept.adapter if kept else self.bank.fresh(h.rank, h.seed)
        progress = kept.progress if kept else Progress()
        self.residents[job.id] = Resident(job, self.bank.join(state), progress)
        self.losses.setdefault(job.id, [])

    def resident(self, name: str) -> Resident:
        return self.residents[JobId(name)]

    def leave(self, name: str) -> Kept:
        resident = self.residents.pop(JobId(name))
        kept = Kept(resident.job, resident.progress, self.bank.state(resident.slot))
        self.bank.leave(resident.slot)
        return kept

    def advance(self) -> None:
        """One pass of all residents that have steps to go."""
        going = [r for r in self.residents.values() if r.progress.step < r.job.steps]
        if going:
            self.tokens += train_pass(
                self.backbone, self.bank, self.samples, going, references=self.references
            )
        for resident in going:
            if resident.passes == 0:
                self.losses[resident.job.id].append(resident.progress.loss_sum)
                resident.progress.loss_sum = 0.0

    def finish(self) -> None:
        while any(r.progress.step < r.job.steps for r in self.residents.values()):
            self.advance()

    def trajectory(self, name: str) -> Trajectory:
        resident = self.resident(name)
        value_rC = self.bank.value_RC.detach()[resident.slot.rows]
        return Trajectory(
            tuple(self.losses[resident.job.id]), dict(named_views(self.bank, value_rC.clone()))
        )

    def logits(self, job: Job, adapter: Mapping[str, Tensor]) -> Tensor:
        """What the model with this adapter predicts for the targets of all samples."""
        h = job.hyperparameters
        state = self.bank.fresh(h.rank, h.seed)
        for name, tensor in named_views(self.bank, state.value_rC):
            tensor.copy_(adapter[name])
        slot = self.bank.join(state)
        samples = tuple(one for example in self.samples for one in example.samples)
        batch = pack([Share(samples, slot, h.scale)], self.backbone.device)
        with torch.no_grad():
            return self.backbone.target_logits(self.bank, batch)


def train_packed(
    family: str, samples: Sequence[Sample], jobs: Sequence[Job]
) -> dict[str, Trajectory]:
    """All the jobs side by side, to their ends."""
    run = PackedRun.of(family, samples)
    for job in jobs:
        run.join(job)
    run.finish()
    return {job.id: run.trajectory(job.id) for job in jobs}
