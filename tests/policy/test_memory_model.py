"""Bytes of jobs beside each other, worked out by hand."""

from dataclasses import replace

import pytest

from alto_policy.memory import (
    SPARE,
    KeptActivations,
    Load,
    Logits,
    MeasuredPasses,
    MemoryModel,
    joined,
    load_of,
    recorded_rows,
    saving_pays,
)
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId


def job(name: str, *, rank: int, batch_size: int = 1) -> Job:
    chosen = Hyperparameters(rank=rank, batch_size=batch_size)
    return Job(id=JobId(name), hyperparameters=chosen, steps=1, reports=1)


MODEL = MemoryModel(capacity=1000, fixed=100, per_rank=10, per_token=3, per_rank_token=2)
SMALL, LARGE = job("a", rank=1, batch_size=1), job("b", rank=4, batch_size=2)


@pytest.mark.parametrize(
    ("jobs", "max_length", "expected"),
    [
        pytest.param((), 5, 100, id="the backbone alone"),
        pytest.param((job("r", rank=4),), 0, 100 + 40, id="rank, at no length"),
        pytest.param((SMALL,), 5, 100 + 10 + 5 * (3 + 2), id="one job"),
        pytest.param((LARGE,), 5, 100 + 40 + 10 * (3 + 8), id="two sequences of rank four"),
        pytest.param((SMALL, LARGE), 5, 100 + 35 + 150, id="two jobs and one backbone"),
    ],
)
def test_bytes(jobs: tuple[Job, ...], max_length: int, expected: int) -> None:
    assert MODEL.bytes(jobs, max_length) == expected


@pytest.mark.parametrize(
    ("capacity", "max_jobs", "fits"),
    [
        pytest.param(285, None, True, id="exactly full"),
        pytest.param(284, None, False, id="a byte too much"),
        pytest.param(285, 2, True, id="as many as may be"),
        pytest.param(285, 1, False, id="one too many"),
    ],
)
def test_fits(capacity: int, max_jobs: int | None, fits: bool) -> None:
    model = MemoryModel(
        capacity=capacity,
        fixed=100,
        per_rank=10,
        per_token=3,
        per_rank_token=2,
        max_jobs=max_jobs,
    )
    assert model.fits((SMALL, LARGE), 5) is fits


# Passes of 100 and 200 tokens were measured; a rank of 16 and 10 tokens of 3 jobs take blocks of
# 16 columns and 10 + 128 * 4 rows.
PASSES = MeasuredPasses(
    peaks=((100, 1000), (200, 1501)), per_row_rank=0, per_rank_moving=0, evaluation=0
)
# Passes of up to 4,000 tokens are recorded; a byte for each row, of two that have as many one more.
RECORDED = replace(
    PASSES,
    peaks=((512, 511), (512, 512), (1024, 1024), (2560, 2560)),
    recorded_tokens=4000,
    logits=Logits(per_target=0, most=0, share=0.0),
)


@pytest.mark.parametrize(
    ("passes", "jobs", "max_length", "expected"),
    [
        pytest.param(PASSES, (), 100, 0, id="nobody"),
        pytest.param(PASSES, (SMALL,), 10, 1000, id="fewer tokens than the smallest pass"),
        pytest.param(PASSES, (SMALL,), 100, 1000, id="as measured"),
        pytest.param(PASSES, (SMALL,), 151, 1000 + 256, id="between, rounded up"),
        pytest.param(PASSES, (LARGE,), 150, 1501 + 7 * 100, id="beyond the largest"),
        pytest.param(
            replace(PASSES, per_row_rank=2), (SMALL,), 100, 1000 + 2 * 16 * 356, id="least width"
        ),
        pytest.param(
            replace(PASSES, per_row_rank=1),
            (SMALL, job("c", rank=65)),
            50,
            1000 + 128 * (100 + 128 * 3),
            id="all rows are as wide as the widest adapter",
        ),
        pytest.param(replace(PASSES, evaluation=5000), (SMALL,), 100, 5000, id="evaluation"),
        pytest.param(
            replace(PASSES, per_rank_moving=900), (LARGE,), 50, 3600, id="adapters that move"
        ),
        pytest.param(
            replace(PASSES, recorded_tokens=200), (SMALL,), 129, 1501 + 7 * 56, id="tokens rounded"
        ),
        pytest.param(
            replace(RECORDED, per_row_rank=1),
            (SMALL,),
            100,
            512 + 16 * (512 + 128 * 9),
            id="recorded with room for eight jobs and 512 rows",
        ),
        pytest.param(RECORDED, (SMALL,), 482, 512, id="the last that 512 rows are for"),
        pytest.param(RECORDED, (SMALL,), 483, 1024, id="the first of 1,024 rows"),
        pytest.param(RECORDED, (SMALL,), 1100, 1536, id="1,536 rows, between two measured"),
        pytest.param(RECORDED, (SMALL,), 3001, 2560 + 7 * 1024, id="3,584 rows, beyond"),
        pytest.param(RECORDED, (SMALL,), 4001, 2560 + 7 * 1441, id="launched"),
        pytest.param(
            replace(RECORDED, logits=Logits(per_target=10, most=1000, share=0.527)),
            (SMALL,),
            1100,
            1536 + 10 * 768,
            id="652 targets with what is spared, in steps of 128",
        ),
        pytest.param(
            replace(RECORDED, logits=Logits(per_target=10, most=1000, share=1.0)),
            (SMALL,),
            1100,
            1536 + 10 * 1000,
            id="no more targets at once than that",
        ),
        pytest.param(
            replace(PASSES, logits=Logits(per_target=10, most=1000, share=0.5)),
            (SMALL,),
            101,
            1000 + 6 + 10 * 51,
            id="targets of a pass that is launched are not rounded up",
        ),
    ],
)
def test_bytes_of_measured_passes(
    passes: MeasuredPasses, jobs: tuple[Job, ...], max_length: int, expected: int
) -> None:
    """Beside a backbone of no size, and adapters whose own state has none."""
    model = MemoryModel(capacity=0, fixed=0, per_rank=0, per_token=7, passes=passes)
    assert model.bytes(jobs, max_length) == expected


@pytest.mark.parametrize("tokens", [1, 100, 481, 482, 512, 4_000, 8_192, 15_500, 16_384])
def test_blocks_of_adapters_have_the_rows_of_a_recording(tokens: int) -> None:
    """As executors record passes: the peak is that of the smallest measured one here."""
    passes = replace(PASSES, peaks=((1 << 15, 0),), recorded_tokens=1 << 15, per_row_rank=1)
    rows = recorded_rows(tokens, SPARE) + 128 * 9
    assert passes.bytes(load_of((SMALL,), tokens), 0) == 16 * rows


def test_where_no_pass_had_room_no_job_fits() -> None:
    nothing = replace(PASSES, peaks=())
    model = MemoryModel(capacity=99, fixed=1, per_rank=1, per_token=1, passes=nothing)
    assert not model.fits((SMALL,), 1)
    assert model.fits((), 1)


# Ten layers of 10 bytes a token each, of which 9 are saved; 100 bytes of other GPUs' tokens.
KEPT = KeptActivations(per_token=100, exchanged=100)
BOTH = MemoryModel(capacity=2_000, fixed=300, per_rank=10, per_token=10, kept=KEPT)


@pytest.mark.parametrize(
    ("tokens", "ranks", "capacity", "expected"),
    [
        pytest.param(15, 10, 2_000, 0, id="exactly room for all"),
        pytest.param(15, 10, 1_999, 1, id="a byte too little"),
        pytest.param(16, 10, 2_000, 1, id="100 bytes are missing, 154 a layer are saved"),
        pytest.param(17, 10, 2_000, 2, id="200 are missing, of 163 a layer"),
        pytest.param(15, 30, 2_000, 2, id="adapters take the room of 200"),
        pytest.param(100, 10, 2_000, 10, id="all are not enough"),
        pytest.param(160, 0, 2_000, 10, id="all are just enough, but for what travels"),
    ],
)
def test_as_few_layers_as_there_is_no_room_for_are_computed_again(
    tokens: int, ranks: int, capacity: int, expected: int
) -> None:
    model = replace(BOTH, capacity=capacity)
    assert model.layers_again(Load(1, ranks, tokens, 0, ranks), 10) == expected


def test_without_a_choice_all_passes_are_alike() -> None:
    passes = replace(PASSES, recompute=True)
    load = Load(jobs=1, ranks=1, tokens=1_000_000)
    assert MODEL.layers_again(load, 10) == 0
    assert replace(MODEL, passes=PASSES).layers_again(load, 10) == 0
    assert replace(MODEL, passes=passes).layers_again(Load(), 10) == 10


def test_what_had_no_room_when_it_was_measured_has_none() -> None:
    nothing = replace(PASSES, peaks=())
    kept = KeptActivations(per_token=1, passes=nothing)
    model = replace(BOTH, per_token=1, passes=replace(PASSES, recompute=True), kept=kept)
    assert model.layers_again(Load(jobs=1, tokens=1), 10) == 10


def a_task(*batches: int) -> Task:
    jobs = tuple(job(f"{n}", rank=1, batch_size=batch) for n, batch in enumerate(batches))
    return Task(id=TaskId("t"), jobs=jobs, backbone="b", max_length=5)


@pytest.mark.parametrize(
    ("batches", "gain", "expected"),
    [
        pytest.param((1, 1), 9.0, False, id="all fit with theirs"),
        pytest.param((4, 1, 1), 1.0, True, id="one fits in no other way"),
        pytest.param((1, 1, 1, 1), 1.05, False, id="more at once are hardly faster"),
        pytest.param((1, 1, 1, 1), 1.06, True, id="more at once are faster"),
    ],
)
def test_jobs_are_admitted_without_room_for_activations_where_it_pays(
    batches: tuple[int, ...], gain: float, expected: bool
) -> None:
    again = MemoryModel(capacity=1_700, fixed=300, per_rank=10, per_token=10)
    keeping = replace(again, fixed=400, per_token=100, capacity=1_900)
    speeds = {10: gain, 100: 1.0}
    pays = saving_pays(keeping, again, a_task(*batches), lambda model: speeds[model.per_token])
    assert pays is expected
    both = joined(keeping, again)
    assert both == replace(again, kept=KEPT)
    assert both.keeping == replace(keeping, capacity=1_700)
    load = load_of(a_task(1, 1).jobs, 5)
    assert both.held(load) == again.held(load)
