from dataclasses import replace

import pytest

from alto_policy.policies import build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.sequential import SequentialSettings
from alto_policy.runlog import Entry
from alto_policy.types import TaskId
from alto_runs.files.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work
from alto_sim.calibration.fitted import Fitted
from alto_sim.calibration.from_reports import fit
from alto_sim.calibration.from_work import fit_work
from alto_sim.calibration.least_squares import typical
from alto_sim.calibration.replayed_passes import recordings_of
from alto_sim.times.overheads import NO_OVERHEADS
from alto_sim.times.step_time import DEFAULT_STEP_TIME, RowTimes, StepTime, forward_passes
from tests.sim.cases import job, play, sim, task

TRUE = StepTime(per_pass=0.5, per_token=0.25, per_evaluation=2.0)
JOBS = [job(f"j{i}", 40, 10, batch_size=2 ** (i % 4)) for i in range(12)]

TASK = task("t", JOBS)


def log(settings: AltoSettings | FifoSettings | SequentialSettings) -> list[Entry]:
    return play(build(settings), sim(JOBS, step_time=TRUE))


def test_alone_each_job_tells_the_exact_times() -> None:
    found = fit(log(SequentialSettings())).step_time
    assert found.per_pass == pytest.approx(TRUE.per_pass)
    assert found.per_token == pytest.approx(TRUE.per_token)
    assert found.per_evaluation == pytest.approx(TRUE.per_evaluation)


@pytest.mark.parametrize("settings", [AltoSettings(keep=0.5, warmup=0.3), FifoSettings()])
def test_a_run_is_as_long_when_simulated_with_its_own_times(
    settings: AltoSettings | FifoSettings,
) -> None:
    first = log(settings)
    again = play(build(settings), sim(JOBS, step_time=fit(first).step_time))
    assert again[-1].event.t == pytest.approx(first[-1].event.t, rel=0.01)


def test_too_little_to_learn_from() -> None:
    assert fit(log(SequentialSettings())[:8]) == Fitted(DEFAULT_STEP_TIME, NO_OVERHEADS)


def test_time_between_two_stays_teaches_nothing() -> None:
    """One job, paused at its boundary: the passes and evaluations of its stretches are alike."""
    alone = play(build(AltoSettings(keep=1.0, warmup=0.2)), sim(JOBS[:1], step_time=TRUE))
    found = fit(alone).step_time
    seconds = found.pass_seconds(JOBS[:1], TASK) * 4 + found.per_evaluation
    assert seconds == pytest.approx(TRUE.pass_seconds(JOBS[:1], TASK) * 4 + TRUE.per_evaluation)


BENT = StepTime(
    per_pass=0.5,
    per_token=0.0005,
    per_evaluation=0.0,
    per_rank=0.01,
    rows=RowTimes(per_row=0.001, per_row_beyond=0.002, filling=4096),
)


def replayed(rows: int, ranks: int, passes: int = 10, more: float = 0.0) -> TrainingWork:
    """Passes of half as many tokens, or a quarter; those that take more time are two that were not
    replayed, of as many tokens."""
    launched = 2 if more else 0
    tokens = passes * rows // (1 if launched else 2 if ranks == 8 else 4)
    times = BENT.rows
    assert times is not None
    return TrainingWork(
        task=TASK.id,
        jobs=1,
        ranks=ranks,
        passes=passes,
        replayed=passes - launched,
        replayed_rows=(passes - launched) * rows,
        tokens=tokens,
        seconds=passes * (0.5 + times.seconds(rows) + 0.01 * ranks) + 0.0005 * tokens + more,
    )


STEADY = [replayed(rows, ranks) for rows in (512, 2048, 8192, 20_480) for ranks in (8, 64)]


def test_a_replay_takes_as_long_as_what_was_recorded() -> None:
    """However few tokens it has; rows beyond those that fill a GPU take longer."""
    found = fit_work([*STEADY, replayed(8192, 8, more=6.0)])
    assert found is not None
    assert found.step_time.rows is not None
    assert BENT.rows is not None
    assert found.step_time.rows.filling == 4096
    assert found.step_time.rows.per_row == pytest.approx(0.001)
    assert found.step_time.rows.per_row_beyond == pytest.approx(0.002)
    assert found.step_time.per_rank == pytest.approx(0.01)
    assert found.step_time.per_token == pytest.approx(0.0005)
    assert found.step_time.per_pass == pytest.approx(0.5)
    assert (found.overheads.recording, found.overheads.compiling) == pytest.approx((6.0, 0.0))


def test_the_first_of_passes_in_a_row_takes_longer() -> None:
    """Nothing was done ahead for it."""
    few = [replayed(rows, ranks, passes=2) for rows in (512, 8192) for ranks in (8, 64)]
    told = (*STEADY, *few, replayed(8192, 8, more=6.0))
    rows = [replace(row, seconds=row.seconds + 0.25) for row in told]
    found = fit_work(rows)
    assert found is not None
    assert found.step_time.rows is not None
    assert found.step_time.rows.per_stretch == pytest.approx(0.25)
    assert found.step_time.per_pass == pytest.approx(0.5)
    assert found.overheads.recording == pytest.approx(6.0)


def test_what_is_typical_adds_up_and_leaves_out_what_is_rare() -> None:
    assert typical([1.0, 1.0, 2.5]) == pytest.approx(1.5)
    assert typical([1.0, 1.0, 3.5]) == pytest.approx(1.0)
    assert typical([]) == typical([-1.0, -2.0]) == 0


def test_compilation_is_what_most_recordings_do_not_take() -> None:
    """The least that one of the runs compiled: others ran on a cold machine."""
    few = [*STEADY, *(replayed(8192, 8, more=more) for more in (10.0, 3.0, 3.0))]
    much = [*STEADY, *(replayed(8192, 8, more=more) for more in (60.0, 3.0, 3.0))]
    for runs, compiling in (((few,), 7.0), ((much,), 57.0), ((much, few), 7.0)):
        found = fit_work(*runs)
        assert found is not None
        assert found.overheads.recording == pytest.approx(3.0)
        assert found.overheads.compiling == pytest.approx(compiling)


def test_sizes_that_are_never_recorded_take_as_long_as_their_tokens() -> None:
    times = BENT.rows
    assert times is not None
    more = 0.0005 * 10 * 20_480 * 3 / 4
    launched = replace(
        STEADY[-1],
        replayed=0,
        replayed_rows=0,
        tokens=10 * 20_480,
        seconds=STEADY[-1].seconds + more,
    )
    found = fit_work([*STEADY[:-2], launched])
    assert found is not None
    assert found.step_time.rows is not None
    assert found.step_time.rows.seconds(20_480) == pytest.approx(times.seconds(20_480))
    assert found.overheads.recording == 0


def test_passes_that_are_launched_again_and_again_are_no_recordings() -> None:
    """However few of them a row tells of; and their runs, whose memory is full, are set apart."""
    launched = replace(STEADY[-1], passes=1, replayed=0, replayed_rows=0, tokens=90_000)
    plain: list[Work] = [*STEADY, evaluated(2.0), evaluated(2.0), evaluated(2.0)]
    full: list[Work] = [
        *STEADY,
        launched,
        *(each for _ in range(4) for each in (launched, evaluated(6.0))),
    ]
    assert recordings_of([*STEADY, launched, launched]) == [*[0.0] * len(STEADY), 0.5, 0.5]
    told = [replace(launched, recorded=recorded) for recorded in (0, 1)]
    assert recordings_of([*STEADY, *told]) == [*[0.0] * len(STEADY), 0, 1]
    assert set(recordings_of([row for row in full if isinstance(row, TrainingWork)])) == {0.0}
    found, alone = fit_work(plain, full), fit_work(plain)
    assert found is not None
    assert alone is not None
    assert found.step_time.rows == alone.step_time.rows
    assert found.step_time.per_evaluated_token == alone.step_time.per_evaluated_token
    assert found.overheads.first_round == alone.overheads.first_round
    assert fit_work(full) != alone


def evaluated(seconds: float) -> EvaluationWork:
    return EvaluationWork(task=TASK.id, jobs=1, first_reports=0, tokens=100, seconds=seconds)


def test_what_executors_told_is_fitted_and_first_times_are_set_apart() -> None:
    passes = [(1000, 10, 8.0), (100, 20, 0.0), (1000, 5, 0.0), (100, 40, 0.0), (3000, 4, 4.0)]
    rows: list[Work] = [
        TrainingWork(
            task=TASK.id,
            jobs=1,
            ranks=8,
            passes=times,
            tokens=times * tokens,
            seconds=times * (0.5 + 0.25 * tokens) + more,
        )
        for tokens, times, more in passes
    ]
    rows += [
        EvaluationWork(
            task=TASK.id,
            jobs=jobs,
            first_reports=new,
            tokens=tokens,
            seconds=3.0 + 0.125 * tokens + 7.0 * new + more,
        )
        for jobs, tokens, new, more in (
            (1, 400, 1, 9.0),
            (1, 800, 0, 0.0),
            (2, 800, 0, 1.0),
            (1, 400, 2, 0.0),
            (2, 800, 2, 0.0),
            (1, 400, 0, 0.0),
            (3, 900, 0, 2.0),
        )
    ]
    found = fit_work(rows)
    assert found is not None
    assert found.step_time.per_pass == pytest.approx(0.5)
    assert found.step_time.per_token == pytest.approx(0.25)
    assert found.step_time.per_evaluation == 0
    assert found.step_time.per_round == pytest.approx(3.0)
    assert found.step_time.per_evaluated_token == pytest.approx(0.125)
    assert found.overheads.first_pass == pytest.approx((8 + 0 + 4) / 3)
    assert found.overheads.first_evaluation == pytest.approx(9.0)
    assert found.overheads.first_round == pytest.approx((1 + 2) / 2)
    assert found.overheads.evaluation_of_pairs == 0
    assert found.overheads.first_report == pytest.approx(7.0)


def test_evaluations_of_few_tokens_wait_for_their_host() -> None:
    """Of 10,000 tokens a pass takes 10 seconds, and of 1,000 not one but three; a round takes 2."""

    def rounds(tokens: int) -> list[Work]:
        counts = range(1, 17)
        times = {jobs: forward_passes(jobs, tokens) for jobs in counts}
        return [
            EvaluationWork(
                task=TASK.id,
                jobs=jobs,
                first_reports=0,
                tokens=jobs * tokens,
                seconds=2.0 + sum(n * max(3.0, held / 1000) for n, held in times[jobs]),
            )
            for jobs in [*counts, *counts]
        ]

    found = fit_work([*STEADY, *rounds(10_000)], [*STEADY, *rounds(1000)])
    assert found is not None
    assert found.step_time.per_round == pytest.approx(2.0, abs=0.1)
    assert found.step_time.per_forward_pass == pytest.approx(3.0, abs=0.1)
    assert found.step_time.per_evaluated_token == pytest.approx(0.001, rel=0.01)


def test_pairs_are_set_apart_where_there_are_other_runs() -> None:
    """Their evaluations take a half more, their passes as long as they may."""
    pairs = TaskId("pairs")

    def told(task: TaskId, more: float) -> list[Work]:
        rows = [replace(row, task=task, seconds=more * row.seconds) for row in STEADY]
        seconds = more * 2.0
        each = EvaluationWork(task=task, jobs=1, first_reports=0, tokens=100, seconds=seconds)
        return [*rows, *[each] * 4]

    found = fit_work(told(TASK.id, 1.0), told(pairs, 1.5), pairs={pairs})
    plain = fit_work(told(TASK.id, 1.0))
    assert found is not None
    assert plain is not None
    assert found.step_time == plain.step_time
    assert found.overheads.evaluation_of_pairs == pytest.approx(0.5)
    alone = fit_work(told(pairs, 1.5), pairs={pairs})
    assert alone is not None
    assert alone.step_time.per_pass == pytest.approx(1.5 * 0.5)
    assert alone.overheads.evaluation_of_pairs == pytest.approx(0.0)


def test_passes_take_longer_where_the_longest_sequence_is_longer() -> None:
    long = TaskId("long")
    rows = [replace(row, task=long, seconds=row.seconds + 0.25 * row.passes) for row in STEADY]
    found = fit_work([*STEADY, *rows], longest={TASK.id: 100, long: 200})
    assert found is not None
    assert found.step_time.per_length == pytest.approx(0.0025)


def test_first_evaluations_of_runs_are_each_their_own() -> None:
    """As long as that of the run which waited least."""

    def told(first: float) -> list[Work]:
        seconds = (first, 2.0, 2.0)
        rounds = [
            EvaluationWork(task=TASK.id, jobs=1, first_reports=0, tokens=100, seconds=each)
            for each in seconds
        ]
        return [*STEADY, *rounds]

    found = fit_work(told(9.0), told(5.0))
    assert found is not None
    assert found.overheads.first_evaluation == pytest.approx(3.0)
    assert found.overheads.first_round == pytest.approx(0.0)


def test_an_executor_that_trained_nothing_teaches_nothing() -> None:
    assert fit_work([LaunchWork(task=TASK.id, jobs=3, seconds=1.5)]) is None
