"""How a simulated executor trains: activations kept or not, backbones whole or split, as real ones
choose."""

from dataclasses import replace

import pytest

from alto_policy.types import Hyperparameters, JobId, Task
from alto_runs.costs.machine_costs import Machine
from alto_runs.costs.step_profile import StepProfile
from alto_runs.profile import read_profile
from tests.sim.cases import job, task
from tests.sim.profiles import SHIPPED


@pytest.fixture(scope="module")
def profile() -> StepProfile:
    return StepProfile(read_profile(SHIPPED))


def asked(backbone: str, width: int, length: int, batch_size: int = 1, jobs: int = 4) -> Task:
    chosen = Hyperparameters(rank=16, alpha=32.0, batch_size=batch_size)
    made = [replace(job(f"j{i}", 9, 1), hyperparameters=chosen) for i in range(jobs)]
    return replace(task("t", made, width), backbone=backbone, max_length=length)


@pytest.mark.parametrize(
    ("width", "is_split", "fits"),
    [
        pytest.param(1, False, False, id="no GPU holds 70B"),
        pytest.param(4, True, True, id="four do"),
    ],
)
def test_what_no_gpu_holds_is_split(
    width: int, is_split: bool, fits: bool, profile: StepProfile
) -> None:
    machine, of = Machine(profile), asked("Llama-3.1-70B", width, 512)
    assert machine.is_split(of) is is_split
    assert machine.memory_model(of).fits(of.jobs[:1], of.max_length) is fits


def test_what_each_gpu_holds_is_copied(profile: StepProfile) -> None:
    machine, of = Machine(profile), asked("Llama-3.1-8B", 4, 512)
    assert not machine.is_split(of)
    assert machine.memory_model(of) == profile.memory_model(of)
    assert machine.pass_seconds(of.jobs, of) == profile.pass_seconds(of.jobs, of)


def test_activations_are_computed_again_where_a_job_fits_in_no_other_way(
    profile: StepProfile,
) -> None:
    machine, of = Machine(profile), asked("Llama-3.1-8B", 1, 2048, batch_size=16, jobs=1)
    assert not profile.memory_model(of).fits(of.jobs, of.max_length)
    assert machine.memory_model(of).fits(of.jobs, of.max_length)
    assert machine.pass_seconds(of.jobs, of) > profile.pass_seconds(of.jobs, of)
    assert machine.pass_seconds(of.jobs, of) == profile.recomputing().pass_seconds(of.jobs, of)


def test_a_width_is_part_of_the_question(profile: StepProfile) -> None:
    machine = Machine(profile)
    wide = [machine.memory_model(asked("Llama-3.1-70B", width, 512)).fixed for width in (4, 8)]
    assert wide[1] < wide[0] < machine.memory_model(asked("Llama-3.1-70B", 1, 512)).fixed


def test_one_job_that_fits_in_no_other_way_is_enough(profile: StepProfile) -> None:
    many, large = (asked("Llama-3.1-8B", 1, 2048, size, jobs) for size, jobs in ((4, 20), (16, 1)))
    one = replace(large.jobs[0], id=JobId("large"))
    mixed = replace(many, jobs=(*many.jobs, one))
    plain, again = profile.memory_model(many), profile.recomputing().memory_model(many)
    assert Machine(profile).memory_model(many) == plain  # it trains faster so
    assert Machine(profile).memory_model(mixed) == again
