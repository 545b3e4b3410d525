"""Which passes of known data are recorded: what they need, and that executors have one rule."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from alto_exec.adapters.bank import Slot
from alto_exec.data.samples import Sample
from alto_exec.passes.batch import PackedBatch, Share, pack
from alto_exec.passes.cuda_graphs import PassShape
from alto_exec.passes.weighing import FixedWeights
from alto_policy.events import TaskArrived
from alto_policy.memory import SPARE
from alto_policy.types import Job, JobId, TokenCounts
from alto_runs.files.data_lengths import SampleLengths
from alto_runs.sample_order import batch_indices
from alto_sim.cluster.backend import SimBackend
from alto_sim.times.overheads import NO_OVERHEADS
from alto_sim.times.pass_needs import PassNeeds, needs_of
from alto_sim.times.pass_shapes import KnownRecordings, Shape
from alto_sim.times.recorded_passes import Recordings
from alto_sim.times.step_time import Computed, RowTimes, StepTime, walked_rows
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, NOW, Flat, gpus, job, news, task

TOKENS = tuple(100 + 37 * i % 90 for i in range(20))
TARGETS = tuple(1 + i % 7 for i in range(20))
LENGTHS = SampleLengths(tokens=TOKENS, targets=TARGETS, longest=TOKENS)
PAIRS = SampleLengths(
    tokens=TOKENS, targets=TARGETS, longest=tuple(t // 2 for t in TOKENS), sequences=2
)
ROWS = RowTimes(per_row=0.01, per_row_beyond=0.0, filling=2048)
LARGE, SMALL = job("large", 40, 2, batch_size=8), job("small", 40, 2, batch_size=2)


def seeded(one: Job, seed: int) -> Job:
    return replace(one, hyperparameters=replace(one.hyperparameters, seed=seed))


def test_passes_need_what_the_samples_have_that_they_train_on() -> None:
    """Seven passes of jobs of two seeds, across epochs, sample by sample."""
    jobs, done = [LARGE, SMALL, seeded(SMALL, 1)], [3, 5, 0]
    found, seen = needs_of(jobs, done, 7, LENGTHS, {})
    assert not seen
    for index, batch in enumerate(found):
        drawn = [
            batch_indices(h.seed, first + index, h.batch_size, 20)
            for h, first in zip((one.hyperparameters for one in jobs), done, strict=True)
        ]
        rows = [sum(TOKENS[i] for i in part) for part in drawn]
        assert batch == PassNeeds(
            rows=sum(rows),
            targets=sum(TARGETS[i] for part in drawn for i in part),
            sequences=12,
            longest=max(TOKENS[i] for part in drawn for i in part),
            adapters=3,
            most_of_adapter=max(rows),
            rank=16,
        )


def test_the_frozen_model_sees_a_pair_until_its_losses_are_told() -> None:
    """The second pass is laid out before the first one's losses: two of its pairs are new again.
    After three passes of eight all twenty are known, and those of another seed are not."""
    (first, second, third, fourth), seen = needs_of([LARGE, SMALL], [0, 0], 4, PAIRS, {})
    assert [batch.frozen_pairs for batch in (first, second, third, fourth)] == [8, 10, 4, 0]
    assert first.sequences == 2 * (10 + 8)
    assert first.pairs == 10
    assert seen == {0: 32}
    order = batch_indices(0, 0, 20, 20)
    again = [*order[:8], *order[:8], *order[:2]]
    assert first.rows == sum(TOKENS[i] for i in again)
    assert first.targets == sum(TARGETS[i] for i in again)
    (later,), _ = needs_of([SMALL], [4], 1, PAIRS, seen)
    assert later.frozen_pairs == 0
    (other,), _ = needs_of([seeded(SMALL, 1)], [4], 1, PAIRS, seen)
    assert other.frozen_pairs == 2


Parts = list[tuple[list[int], int]]  # the lengths of an adapter's samples, and its rank
PARTS = st.lists(
    st.tuples(st.lists(st.integers(5, 300), min_size=1, max_size=9), st.sampled_from([16, 32, 64])),
    min_size=1,
    max_size=9,
)


def packed(parts: Parts, targets: int) -> tuple[PassNeeds, PackedBatch, FixedWeights]:
    """So many targets in each sample."""
    shares: list[Share] = []
    first = 0
    for lengths, rank in parts:
        masks = [(False,) * (n - targets) + (True,) * targets for n in lengths]
        samples = tuple(Sample((1,) * len(mask), mask) for mask in masks)
        shares.append(Share(samples, Slot(first, rank), 1.0))
        first += rank
    batch = pack(shares, torch.device("cpu"))
    needs = PassNeeds(
        rows=len(batch.tokens_T),
        targets=len(batch.targets_N),
        sequences=sum(len(lengths) for lengths, _ in parts),
        longest=max(max(lengths) for lengths, _ in parts),
        adapters=len(parts),
        most_of_adapter=max(sum(lengths) for lengths, _ in parts),
        rank=max(rank for _, rank in parts),
    )
    return needs, batch, FixedWeights(torch.ones(len(batch.targets_N)))


@example([([250, 250], 16)], [([10] * 8, 16)], 1, 1)  # rows left over are two sequences more
@example([([61] * 8, 16)], [([70] * 8, 16)], 1, 1)  # more of them than of the batch
@given(PARTS, PARTS, st.integers(1, 4), st.integers(1, 4))
def test_shapes_are_those_of_executors(some: Parts, others: Parts, few: int, many: int) -> None:
    """Whatever is packed; and what has room for a batch there has it here."""
    first, first_batch, first_weigh = packed(some, few)
    roomy = Shape.around(first, SPARE)
    real_roomy = PassShape.around(first_batch, first_weigh, SPARE)
    needs, batch, weigh = packed(others, many)
    own, real = Shape.around(needs), PassShape.around(batch, weigh)
    for shape, same in ((roomy, real_roomy), (own, real)):
        assert (shape.rows, shape.targets, shape.sequences) == (
            same.rows,
            same.targets,
            same.sequences,
        )
        assert (shape.longest, shape.adapters) == (same.longest, same.tables.num_segments)
        assert (shape.most_of_adapter, shape.rank) == (
            same.tables.max_segment,
            same.tables.rank_width,
        )
    assert roomy.takes(needs, own) == real_roomy.takes(batch, real)
    assert roomy.takes(first, Shape.around(first))
    assert real_roomy.takes(first_batch, PassShape.around(first_batch, first_weigh))


def known(lengths: SampleLengths = LENGTHS) -> KnownRecordings:
    counts = TokenCounts(per_sample=sum(TOKENS) / 20, validation=1)
    jobs = task("t", [LARGE, SMALL])
    return KnownRecordings(
        task=replace(jobs, max_length=190, tokens=counts),
        lengths=lengths,
        compiling=7.0,
        recording=5.0,
        rows=ROWS,
        per_token=0.0,
    )


def test_the_first_of_passes_in_a_row_takes_longer_once() -> None:
    of_task = replace(known().task, tokens=None)
    plain = Recordings(task=of_task, compiling=0.0, recording=0.0, rows=ROWS)
    rows = replace(ROWS, per_stretch=2.0)
    for one in (known(), plain):
        (without, _), (more, _) = (
            each.after([LARGE], 0.0, 3, [0]) for each in (one, replace(one, rows=rows))
        )
        assert more - without == pytest.approx(2.0)


def test_a_batch_is_computed_in_the_smallest_recording_with_room_for_it() -> None:
    """Sixteen samples have room for some 2,300 rows and a few targets; two fit in as well."""
    more, later = known().after([LARGE], 0.0, 1, [0])
    (shape,) = later.wasted
    mean = known().task.mean_length * 8
    assert more == pytest.approx(12.0 + 0.01 * (shape.rows - mean))
    more, small = later.after([SMALL], 0.0, 1, [0])
    assert set(small.wasted) == {shape}
    assert more == pytest.approx(0.01 * (shape.rows - mean / 4))
    twice, _ = replace(later, slowdown=2.0).after([SMALL], 0.0, 1, [0])
    assert twice == pytest.approx(2 * more)


def test_another_recording_is_made_once_enough_rows_were_computed_for_nothing() -> None:
    _, large = known().after([LARGE], 0.0, 1, [0])
    (shape,) = large.wasted
    small = Shape.around(needs_of([SMALL], [0], 1, LENGTHS, {})[0][0], SPARE)
    passes = 100_000 // (shape.rows - small.rows)
    done = list(range(passes + 1))
    state = large
    for first in done[:-1]:
        _, state = state.after([SMALL], 0.0, 1, [first])
        assert set(state.wasted) == {shape}
    more, state = state.after([SMALL], 0.0, 1, [done[-1]])
    assert more > 5.0
    assert len(state.wasted) == 2
    assert state.wasted[shape] == 0


def test_asking_changes_nothing_and_a_stretch_may_be_cut() -> None:
    """But for the pass that is laid out while another one is at work, which knows fewer pairs."""
    whole = known().after([LARGE, SMALL], 0.0, 12, [0, 0])
    more, half = known().after([LARGE, SMALL], 0.0, 5, [0, 0])
    rest, later = half.after([LARGE, SMALL], 0.0, 7, [5, 5])
    assert known().after([LARGE, SMALL], 0.0, 12, [0, 0]) == whole
    assert more + rest == pytest.approx(whole[0])
    assert later == whole[1]


def test_passes_that_are_too_large_are_launched_each_time_and_compute_their_own_rows() -> None:
    (first, second), _ = needs_of([LARGE], [0], 2, LENGTHS, {})
    told: dict[int, Computed] = {}
    most = max(first.rows, second.rows) - 1
    some = replace(known(), launched_pass=3.0, most_recorded=most, told=told)
    more, later = some.after([LARGE], 0.0, 2, [0])
    recorded = min(first, second, key=lambda batch: batch.rows)
    (shape,) = later.wasted
    assert shape == Shape.around(recorded, SPARE)
    rows = {shape.rows: 1, max(first.rows, second.rows): 1}
    assert told[0].rows == rows
    mean = known().task.mean_length * 8
    least = max(0.0, 3.0 - 0.01 * (max(first.rows, second.rows) - mean))
    assert more == pytest.approx(7.0 + 5.0 + least + 0.01 * (sum(rows) - 2 * mean))
    _, last = later.after([SMALL], 0.0, 3, [0])
    later.after([SMALL], 0.0, 5, [0])  # planned longer
    assert [computed.passes for computed in told.values()] == [2, 5]
    assert last == later.after([SMALL], 0.0, 3, [0])[1]


def test_what_a_pass_computes_is_its_room_but_for_its_sequences() -> None:
    told: dict[int, Computed] = {}
    small = replace(SMALL, hyperparameters=replace(SMALL.hyperparameters, rank=16))
    _, later = replace(known(), told=told).after([small], 0.0, 1, [0])
    (shape,) = later.wasted
    samples = small.hyperparameters.batch_size
    assert told[0] == Computed(
        rows={shape.rows: 1},
        places=shape.sequences * shape.longest,
        longest=shape.longest,
        sequences=samples,
        walked=shape.most_of_adapter,
    )
    times = RowTimes(
        per_row=0.0,
        per_row_beyond=0.0,
        filling=1,
        per_place=1.0,
        per_longest=1e6,
        per_sequence=1e9,
        per_walked=1e12,
    )
    parts = (told[0].places, told[0].longest * 1e6, samples * 1e9, told[0].walked * 1e12)
    assert times.of(told[0]) == sum(parts)
    assert walked_rows(17, 256) == walked_rows(16, 513) == 0
    assert walked_rows(16, 512) == 512


def test_a_run_over_known_data_takes_what_its_batches_take() -> None:
    """One job of eight samples a pass; its batches are others than those of the mean."""
    times = StepTime(
        per_pass=1.0, per_token=0.001, per_evaluation=0.0, per_evaluated_token=1.0, rows=ROWS
    )
    started = task("t", [replace(LARGE, id=JobId("a"), steps=2, reports=1)])
    counts = TokenCounts(per_sample=sum(TOKENS) / 20, validation=3)
    started = replace(started, max_length=190, tokens=counts)

    def end(lengths: SampleLengths, **more: Any) -> float:
        workload = Workload(
            arrivals=(TaskArrived(0.0, started),),
            curves=Flat(),
            step_time=times,
            latencies=NOW,
            overheads=replace(NO_OVERHEADS, recording=5.0, **more),
            memory=replace(MEMORY, capacity=10**9),
            lengths={started.id: lengths},
        )
        return news(SimBackend(workload, gpus()), launched=["a"])[-1][0]

    batches, _ = needs_of([LARGE], [0], 2, LENGTHS, {})
    shape = Shape.around(batches[0], SPARE)
    tokens = sum(batch.rows for batch in batches)
    plain = 5.0 + 2 * (1.0 + 0.01 * shape.rows) + 0.001 * tokens + 3.0
    assert end(LENGTHS) == pytest.approx(plain)
    assert end(LENGTHS, evaluation_of_pairs=0.5) == pytest.approx(plain)
    assert end(PAIRS, evaluation_of_pairs=0.5) == pytest.approx(end(PAIRS) + 1.5)


def test_lengths_are_of_the_same_samples() -> None:
    with pytest.raises(ValueError, match="of the same samples"):
        SampleLengths(tokens=(1, 2), targets=(1,), longest=(1, 2))
