"""A job does not feel its neighbours.

Bitwise where the batches have the same shapes, whatever a neighbour holds; where neighbours change
the shapes, matrix products may sum in another order, and the one tolerance applies.
"""

from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alto_exec.data.samples import Sample
from alto_policy.types import Job, Schedule
from tests.exec.comparing import Trajectory, assert_close, assert_same_training
from tests.exec.packed_loop import Kept, PackedRun, a_job, ragged_samples, tiny_model, train_packed

SAMPLES = ragged_samples()
JOBS = (
    a_job("plain", steps=5),
    a_job("wide", rank=9, batch_size=3, rslora=True, clip=0.3, seed=1),
    a_job("dropped", rank=2, dropout=0.4, batch_size=2, accumulation=2, seed=2),
    a_job("fast", steps=6, learning_rate=0.1, schedule=Schedule.COSINE, rise=0.3, seed=3),
    a_job("slow", steps=3, rank=5, accumulation=3, weight_decay=0.3, beta1=0.5, seed=4),
)


def same_length(length: int = 12) -> list[Sample]:
    samples = ragged_samples(count=64, longest=4 * length)
    return [
        Sample(s.tokens[:length], (False,) * (length - 3) + (True,) * 3)
        for s in samples
        if len(s.tokens) >= length
    ]


@lru_cache
def alone(job: Job) -> Trajectory:
    """In double precision."""
    return train_packed("llama", SAMPLES, [job])[job.id]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 0, 3, 1)], ids=["listed", "mixed"])
def test_jobs_of_all_kinds_side_by_side_train_as_alone(order: tuple[int, ...]) -> None:
    packed = train_packed("llama", SAMPLES, [JOBS[i] for i in order])
    for job in JOBS:
        assert_same_training(packed[job.id], alone(job), what=job.id)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt_neox"])
def test_other_families_side_by_side_train_as_alone(family: str) -> None:
    packed = train_packed(family, SAMPLES, JOBS[:3])
    solo = train_packed(family, SAMPLES, JOBS[1:2])
    assert_same_training(packed["wide"], solo["wide"])


@pytest.mark.usefixtures("double_precision")
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.integers(1, 16),
    st.lists(
        st.tuples(st.sampled_from(["start", "stop", "pause", "resume"]), st.integers(0, 4)),
        min_size=4,
        max_size=14,
    ),
)
def test_whoever_comes_and_goes_a_job_trains_as_alone(
    rows: int, script: list[tuple[str, int]]
) -> None:
    """Jobs join, are stopped for good, pause and come back in other slots, a pass between each."""
    run = PackedRun.of("llama", SAMPLES, rows)
    kept: dict[str, Kept] = {}
    stopped: set[str] = set()
    for move, number in script:
        job = JOBS[number]
        resident = run.residents.get(job.id)
        if resident is not None and resident.passes == 0:
            if move == "stop":
                run.leave(job.id)
                stopped.add(job.id)
            elif move == "pause":
                kept[job.id] = run.leave(job.id)
        elif resident is None and job.id not in stopped and move in ("start", "resume"):
            run.join(job, kept.pop(job.id, None))
        run.advance()
    for name, state in kept.items():
        run.join(state.job, state)
        assert name not in stopped
    run.finish()
    for job in JOBS:
        if job.id in run.residents:
            assert_same_training(run.trajectory(job.id), alone(job), what=job.id)
        elif losses := run.losses.get(job.id):
            before = alone(job).losses[: len(losses)]
            assert_same_training(Trajectory(tuple(losses), {}), Trajectory(before, {}), what=job.id)


def test_in_single_precision_losses_are_the_same_beside_neighbours() -> None:
    packed = train_packed("llama", SAMPLES, JOBS)
    for job in JOBS:
        solo = train_packed("llama", SAMPLES, [job])[job.id]
        assert_same_training(Trajectory(packed[job.id].losses, {}), Trajectory(solo.losses, {}))


@pytest.mark.parametrize(
    "neighbour",
    [
        pytest.param({}, id="another seed"),
        pytest.param({"learning_rate": 10.0}, id="one that diverges"),
        pytest.param({"dropout": 0.5}, id="dropout"),
        pytest.param({"alpha": 1e30}, id="losses that are not finite"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_what_a_neighbour_holds_changes_not_one_bit(family: str, neighbour: dict[str, Any]) -> None:
    """The neighbour's shapes are the same each time."""
    samples, job = same_length(), a_job(batch_size=2)
    trajectories = []
    variants: tuple[dict[str, Any], ...] = ({"seed": 1}, {"seed": 2, **neighbour})
    for others in variants:
        run = PackedRun.of(family, samples)
        run.join(a_job("neighbour", **others))
        run.join(job)
        run.finish()
        trajectories.append(run.trajectory("job"))
    assert_same_training(*trajectories, bitwise=True)


def test_the_same_run_twice_has_the_same_bits() -> None:
    one, other = (train_packed("llama", SAMPLES, JOBS) for _ in range(2))
    for job in JOBS:
        assert_same_training(one[job.id], other[job.id], bitwise=True)


def test_a_job_whose_loss_is_not_finite_is_lost_and_takes_no_step() -> None:
    run = PackedRun.of("llama", SAMPLES)
    for job in (a_job("sound"), a_job("broken", steps=3, alpha=1e38, accumulation=2, seed=1)):
        run.join(job)
    broken, sound = run.resident("broken"), run.resident("sound")
    run.bank.value_RC.detach()[broken.slot.rows] = 1e3
    before = run.bank.state(broken.slot)
    run.advance()
    assert not broken.is_lost, "its step is not at its end"
    run.advance()
    assert broken.is_lost
    assert not sound.is_lost
    after = run.bank.state(broken.slot)
    assert torch.equal(after.value_rC, before.value_rC)
    assert after.moments is not None
    assert not any(moment.any() for moment in after.moments.tensors.values())


@pytest.mark.usefixtures("double_precision")
def test_nothing_of_a_lost_job_stays_in_the_bank() -> None:
    run = PackedRun.of("llama", SAMPLES, rows=8)
    run.join(a_job("sound", steps=6))
    run.join(a_job("broken", rank=4, alpha=1e300, accumulation=2, seed=1))
    run.bank.value_RC.detach()[run.resident("broken").slot.rows] = 1e300
    run.advance()
    assert run.bank.grad_RC.isnan().any(), "the broken job does break"
    slot = run.resident("broken").slot
    run.leave("broken")
    for tensor in (
        run.bank.value_RC,
        run.bank.grad_RC,
        *run.bank.memory.moments.tensors.values(),
    ):
        assert not tensor[slot.rows].any()
        assert tensor.isfinite().all()
    heir = a_job("heir", rank=4, seed=9)
    run.join(heir)
    assert run.resident("heir").slot == slot
    run.finish()
    assert_same_training(run.trajectory("heir"), alone(heir))
    assert_same_training(run.trajectory("sound"), alone(a_job("sound", steps=6)))


@pytest.mark.usefixtures("double_precision")
def test_a_loss_is_the_jobs_own_mean() -> None:
    """A token weighs the more in its job's gradient the fewer targets the job has, whatever the
    number of targets beside it."""
    few = Sample((5, 6, 7), (False, False, True))
    many = Sample((5, *range(20, 40)), (False, *[True] * 20))
    run = PackedRun.of("llama", [few, many])
    jobs = [a_job(f"seed {seed}", steps=2, learning_rate=0.0, seed=seed) for seed in range(4)]
    for job in jobs:
        run.join(job)
    run.finish()
    found = sorted(loss for losses in run.losses.values() for loss in losses)
    means = [_mean_loss(sample) for sample in (few, many)]
    assert_close(torch.tensor(found), torch.tensor(sorted(means * 4)))


def _mean_loss(sample: Sample) -> float:
    model = tiny_model("llama")
    tokens = torch.tensor(sample.tokens)
    with torch.no_grad():
        logits = model(input_ids=tokens[None]).logits[0]
    losses = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")
    return float(losses[torch.tensor(sample.is_target)[1:]].mean())
