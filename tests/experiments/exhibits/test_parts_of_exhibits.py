import math
from dataclasses import replace
from statistics import fmean

import pytest

from alto_policy.types import Hyperparameters
from alto_runs.profile import GangRow, read_profile, shipped_profile
from alto_sim.curves.generated import Shape
from experiments.exhibits.fig01_sensitivity import spread
from experiments.exhibits.fig03_batch_size import best_by_batch, holds_claim
from experiments.exhibits.fig10_expert import nearest
from experiments.exhibits.fig13_adapter_parallel import (
    beside_one_gpu,
    run_beside_fsdp,
    speedup,
    without_fsdp,
)
from experiments.exhibits.fig14_quality import of_batch_size
from experiments.exhibits.past_cobatching import enough
from experiments.exhibits.past_curves import course, fitted
from experiments.exhibits.past_selection import gist_of
from experiments.exhibits.past_sensitivity import thinned
from experiments.exhibits.search_costs import (
    ASHA,
    LORAFUSION,
    PEFT,
    UNBATCHED,
    search_cost,
    wide_cost,
)
from experiments.grids.curve_sets import CurveSet, TableCurves, generated_sets, recorded_sets
from experiments.grids.same_task import seed_of
from experiments.tuners.results import read_results
from tests.experiments.tables import grid

MIXED = grid([[4, 3], [5, 1], [2, 2], [math.nan] * 2], batch_sizes=(1, 2, 2, 4))


def test_spreads_leave_out_what_was_lost() -> None:
    assert spread([2.0, 1.0, 4.0, math.inf]) == (4.0, 2.0)


def test_the_best_loss_of_each_batch_size_up_to_a_share() -> None:
    assert best_by_batch([MIXED], 0.5) == {1: 4.0, 2: 2.0, 4: math.inf}
    assert best_by_batch([MIXED], 1.0) == {1: 3.0, 2: 1.0, 4: math.inf}


@pytest.mark.parametrize(
    ("losses", "holds"), [((2.0, 3.0), True), ((2.0, 0.5), False), ((0.5, 0.5), False)]
)
def test_larger_batches_are_judged_beside_the_others(
    losses: tuple[float, float], holds: bool
) -> None:
    larger = grid([[9, losses[0]], [9, losses[1]]], batch_sizes=(16, 32))
    both = [MIXED, larger]
    assert best_by_batch(both, 1.0) == {1: 3.0, 2: 1.0, 4: math.inf, 16: losses[0], 32: losses[1]}
    assert holds_claim([both]) is holds
    assert holds_claim([[MIXED]]) is None
    assert holds_claim([[larger]]) is None, "nothing small to be better"


def test_the_jobs_of_one_batch_size_are_a_task_of_their_own() -> None:
    part = of_batch_size(MIXED, 2)
    assert [job.id for job in part.task.jobs] == ["job-1", "job-2"]
    assert part.val.tolist() == [[5, 1], [2, 2]]


def test_the_nearest_job_is_counted_in_doublings() -> None:
    curves = generated_sets(1)[0]
    wanted = Hyperparameters(learning_rate=2.4e-4, rank=12, batch_size=3)
    chosen = curves.task.jobs[nearest(curves, wanted)].hyperparameters
    assert (chosen.learning_rate, chosen.rank, chosen.batch_size) == (2e-4, 16, 4)


def test_thinned_reports_hold_the_training_between_them() -> None:
    thin = thinned(grid([[4, 2, 6, 8, 1]]), 2)
    assert thin.val.tolist() == [[2, 8]]
    assert thin.train.tolist() == [[3, 7]]
    assert thin.task.jobs[0].reports == 2


def test_curves_of_a_table_are_those_of_its_reports() -> None:
    curves = grid([[4, 3, 2, 1]])
    job, table = curves.task.jobs[0], TableCurves(curves)
    steps = [job.report_step(number) for number in (1, 2, 3, 4)]
    assert [table.losses(job, step).val for step in steps] == [4, 3, 2, 1]


def test_enough_is_where_doubling_adds_less_than_a_tenth() -> None:
    assert enough({1: 10, 2: 20, 4: 30, 8: 32, 16: 33}) == 4
    assert enough({1: 10, 2: 20}) is None


def small_set() -> CurveSet:
    """Twelve jobs of ten reports."""
    curves = generated_sets(1)[0]
    jobs = tuple(replace(job, reports=10) for job in curves.task.jobs[:12])
    return replace(
        thinned(curves, 4),
        task=replace(curves.task, jobs=jobs),
        train=curves.train[:12, 3::4],
        val=curves.val[:12, 3::4],
    )


def test_a_search_that_stops_early_and_one_that_packs_are_cheaper() -> None:
    small = small_set()
    alone, packed, exits = (
        search_cost(small, "SmolLM2-135M", system) for system in (PEFT, "fifo", "alto")
    )
    assert alone.seconds > packed.seconds > exits.seconds
    assert exits.to_best <= exits.seconds
    assert alone.regret == packed.regret == pytest.approx(0.0)


def test_so_they_are_over_several_gpus_of_which_all_train_one_job_where_nothing_is_packed() -> None:
    small = small_set()
    alone, packed, exits = (
        wide_cost(small, "Llama-3.1-70B", system) for system in (UNBATCHED, "fifo", "alto")
    )
    assert alone.seconds > 1.5 * packed.seconds
    assert packed.seconds > exits.seconds
    assert alone.regret == packed.regret == pytest.approx(0.0)


def test_a_tuner_over_peft_begins_all_jobs_and_trains_its_share_of_the_samples() -> None:
    """At a setting that other tasks chose; its plays differ by the order of the jobs."""
    curves = next(one for one in recorded_sets() if one.name == "qasc-combined-fact")
    alone, ruled, exits = (
        search_cost(curves, "SmolLM2-135M", system) for system in (PEFT, ASHA, "alto")
    )
    begun = 60 * 2.0
    shares: dict[str, list[float]] = {}
    for one in read_results():
        if (one.task, one.rule, one.arrival) == (curves.name, "Ray Tune ASHA", "sequential"):
            shares.setdefault(one.setting, []).append(one.budget)
    share = (ruled.seconds - begun) / (alone.seconds - begun)
    assert any(share == pytest.approx(fmean(found), rel=1e-6) for found in shares.values())
    assert exits.seconds < ruled.to_best < ruled.seconds
    assert 0 <= ruled.regret < 0.05


def test_lorafusion_takes_four_jobs_of_equal_batch_in_passes_that_wait_for_the_host() -> None:
    """15 jobs of each batch are four groups, whose passes take what was measured."""
    curves = next(one for one in recorded_sets() if one.name == "qasc-combined-fact")
    steps = {job.hyperparameters.batch_size: job.steps for job in curves.task.jobs}
    fused = search_cost(curves, "SmolLM2-135M", LORAFUSION)
    assert fused.seconds == pytest.approx(2.0 + 4 * sum(steps.values()) * 1.9004 / 8, rel=1e-6)
    assert 0 < fused.to_best < fused.seconds
    assert fused.regret == 0.0


def test_lorafusion_is_given_no_pass_that_is_shorter_than_ours() -> None:
    """Of 8B, 32 long sequences take ours more than its host."""
    (curves,) = (one for one in recorded_sets() if one.name == "ropes" and seed_of(one.task) == 0)
    steps = sum({job.hyperparameters.batch_size: job.steps for job in curves.task.jobs}.values())
    seconds = search_cost(curves, "Llama-3.1-8B", LORAFUSION).seconds
    assert seconds > 1.02 * (30.0 + 4 * steps * 1.1159 / 4)


def test_one_gpu_is_told_beside_the_speed_ups_of_the_latest_run() -> None:
    earlier, later = (
        [row for row in read_profile(shipped_profile(name)) if isinstance(row, GangRow)]
        for name in ("h100x4.jsonl", "h200x4.jsonl")
    )
    told = beside_one_gpu([earlier, later], "Llama-3.1-8B")
    assert told is not None
    assert "on 4 H200 (commit a5a64a1)" in told
    assert "8.5 times FSDP2" in told
    assert beside_one_gpu([later, earlier], "Llama-3.1-8B") != told
    assert beside_one_gpu([later], "nobody's") is None


def test_a_panel_shows_one_run_and_its_speed_up_is_of_what_is_drawn() -> None:
    """32B was first measured without FSDP2, at more batch sizes, and then beside it."""
    alone, beside = (
        [row for row in read_profile(shipped_profile(name)) if isinstance(row, GangRow)]
        for name in ("h100x4.jsonl", "h100x4-whole-layers.jsonl")
    )
    for runs in ((alone, beside), (beside, alone)):
        assert run_beside_fsdp(runs, "Qwen2.5-32B") is beside
        dashed = without_fsdp(runs, "Qwen2.5-32B")
        assert [round(row.tokens_per_second) for row in dashed] == [4173, 9825, 12584, 12565]
        assert run_beside_fsdp(runs, "Llama-3.1-8B") is alone
        assert without_fsdp(runs, "Llama-3.1-8B") == []
    assert speedup(beside, "Qwen2.5-32B", 2) == pytest.approx(8879 / 984, rel=1e-3)


def test_the_course_of_good_jobs() -> None:
    """Of three jobs the first is one; the last breaks down."""
    columns = 20
    falling = [4.0 - 2.0 * min(1.0, column / 10) for column in range(columns)]
    curves = grid([[*falling[:-1], 2.5], [3.0] * columns, [5.0, *[math.nan] * (columns - 1)]])
    curves.train[0, -1] = 2.0
    found = course(curves)
    assert (found.good, found.lost) == pytest.approx((1 / 3, 1 / 3))
    assert found.way_left == pytest.approx(0.9)  # a tenth of the steps is two reports
    assert (found.gap, found.rise) == pytest.approx((0.25, 0.25))
    assert found.noise == 0


def test_a_shape_is_found_again_from_the_courses_that_it_gives() -> None:
    planted = Shape(noise=0.02, overfit=0.3, overfit_spread=0.3, speed=20.0)
    courses = [course(one) for one in generated_sets(12, first_seed=100, shape=planted)]
    found = fitted(courses)
    assert found.noise == pytest.approx(planted.noise, rel=0.1)
    assert found.overfit == pytest.approx(planted.overfit, rel=0.2)
    assert found.speed == pytest.approx(planted.speed, rel=0.4)
    assert found.train_noise == planted.train_noise


@pytest.mark.parametrize(
    ("plus", "slope", "begins", "says"),
    [
        ((0.09, 0.004), 0.01, "No: `alto+`", "misleads: a regret of 1.00%, without them 0.50%"),
        ((0.09, 0.006), 0.005, "Nothing better was found", "does no harm"),
        ((0.13, 0.001), 0.002, "Nothing better was found", "does no harm"),
    ],
)
def test_another_selection_wins_by_less_budget_for_no_more_regret(
    plus: tuple[float, float], slope: float, begins: str, says: str
) -> None:
    """On tasks that did not choose its settings."""
    told = gist_of(
        {
            ("alto", 1.0): (0.13, 0.005),
            ("one round", 1.0): (0.12, 0.005),
            ("slope", 1.0): (0.12, slope),
            ("alto+", 0.75): plus,
            ("alto+, as shipped", 1.0): (0.01, 0.0),
        }
    )
    assert told.startswith(begins)
    assert says in told
