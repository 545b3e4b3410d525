"""Jobs drop by what they are, not by what they are called or beside whom they train."""

from dataclasses import fields, replace
from typing import Any

import pytest

from alto_exec.passes import batch, training
from alto_exec.passes.batch import Share
from alto_exec.passes.dropping import step_key
from alto_policy.types import Hyperparameters, Schedule
from tests.exec.packed_loop import PackedRun, a_job, ragged_samples

OTHERS: dict[str, Any] = {
    "rank": 8,
    "alpha": 16.0,
    "rslora": True,
    "dropout": 0.1,
    "learning_rate": 1e-4,
    "schedule": Schedule.COSINE,
    "rise": 0.1,
    "weight_decay": 0.1,
    "beta1": 0.8,
    "beta2": 0.99,
    "epsilon": 1e-6,
    "clip": 1.0,
    "dpo_beta": 0.2,
    "batch_size": 2,
    "accumulation": 2,
    "seed": 1,
}


def test_configurations_that_differ_in_one_field_drop_differently() -> None:
    assert [field.name for field in fields(Hyperparameters)] == list(OTHERS)
    plain = Hyperparameters()
    variants = [plain, *(replace(plain, **{name: value}) for name, value in OTHERS.items())]
    keys = {step_key(h, number) for h in variants for number in range(50)}
    assert len(keys) == 50 * len(variants)


@pytest.mark.parametrize(
    ("chosen", "number", "key"),
    [({}, 0, 684344725), ({"rank": 8, "alpha": 16, "dropout": 0.1, "seed": 3}, 7, 1009197146)],
)
def test_keys_are_those_of_runs_before(chosen: dict[str, Any], number: int, key: int) -> None:
    """Or a run that goes on would drop otherwise. Whole numbers are the same as their floats."""
    assert step_key(Hyperparameters(**chosen), number) == key


def test_jobs_of_one_seed_drop_by_their_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed or alone, and under any name."""
    found: list[dict[int, int]] = []
    pack = batch.pack

    def noting(shares: list[Share], *rest: Any) -> Any:
        found.append({share.slot.rank: share.dropout_key for share in shares if share.slot})
        return pack(shares, *rest)

    monkeypatch.setattr(training, "pack", noting)
    together = a_job("study-0", rank=4, dropout=0.5), a_job("study-1", rank=2, dropout=0.5)
    for jobs in (together, (a_job("another", rank=2, dropout=0.5),)):
        run = PackedRun.of("llama", ragged_samples())
        for job in jobs:
            run.join(job)
        run.finish()
    packed, alone = found[:4], found[4:]
    assert len(packed) == len(alone) == 4
    assert all(keys[4] != keys[2] for keys in packed)
    assert [keys[2] for keys in packed] == [keys[2] for keys in alone]
