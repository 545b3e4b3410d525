"""A pass that is laid out ahead is the pass that would have been laid out then."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from alto_exec.jobs.residence import Resident
from alto_exec.passes import training
from alto_exec.passes.training import Lookahead, train_pass
from alto_policy.types import JobId
from tests.exec.comparing import assert_identical
from tests.exec.packed_loop import PackedRun, a_job, ragged_samples

SAMPLES = ragged_samples()
JOBS = (
    a_job("steady", steps=6, accumulation=2, dropout=0.1),
    a_job("wide", steps=9, batch_size=3),
)


def train(ahead: Lookahead | None) -> tuple[list[float], torch.Tensor]:
    """Losses and adapters of jobs that leave and join on the way."""
    run = PackedRun.of("llama", SAMPLES)
    for job in JOBS:
        run.join(job)
    losses: list[float] = []

    def passes(count: int, residents: Sequence[Resident]) -> None:
        for _ in range(count):
            train_pass(run.backbone, run.bank, SAMPLES, residents, ahead=ahead)
            losses.extend(resident.progress.loss_sum for resident in residents)

    both = list(run.residents.values())
    passes(5, both)
    passes(2, both[1:])
    run.join(a_job("late", seed=4))
    passes(2, [run.residents[JobId("late")], both[0]])
    return losses, run.bank.value_RC.detach().clone()


def test_looking_ahead_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[int] = []
    lay_out = training._lay_out

    def counting(*inputs: Any) -> Any:
        laid_out.append(len(inputs[0]))
        return lay_out(*inputs)

    monkeypatch.setattr(training, "_lay_out", counting)
    losses, adapters = train(None)
    assert len(laid_out) == 9
    laid_out.clear()
    ahead_losses, ahead_adapters = train(Lookahead())
    assert 9 < len(laid_out) < 18, "most of what was laid out ahead was used"
    assert ahead_losses == losses
    assert_identical(ahead_adapters, adapters)
