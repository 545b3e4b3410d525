"""How a simulated executor trains: activations kept or not, backbones whole or split, as real ones
choose."""

from dataclasses import replace
from pathlib import Path

import pytest

from alto_policy.memory import joined, load_of
from alto_policy.types import Hyperparameters, JobId, Task
from alto_runs.costs.machine_costs import ExecutorChoices, Machine
from alto_runs.costs.step_profile import StepProfile
from alto_runs.costs.storage import PLAIN, Storage
from alto_runs.profile import read_profile
from alto_sim.workloads.loading import load_workload
from tests.runs.costs.profiles import SHIPPED
from tests.sim.cases import job, task
from tests.tune.small_study import write_records


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
    """In as few layers as there is no room for."""
    of = asked("Llama-3.1-8B", 1, 2048, batch_size=16, jobs=1)
    again = profile.kept(PLAIN, recompute=True)
    kept_seconds, again_seconds = (one.pass_seconds(of.jobs, of) for one in (profile, again))
    assert not profile.memory_model(of).fits(of.jobs, of.max_length)
    seconds = []
    for gigabytes in (None, 50, 41):
        machine = Machine(profile, ExecutorChoices(memory_gb=gigabytes))
        memory = machine.memory_model(of)
        assert memory.fits(of.jobs, of.max_length)
        layers = memory.layers_again(load_of(of.jobs, of.max_length), 32)
        expected = kept_seconds + layers / 32 * (again_seconds - kept_seconds)
        assert machine.pass_seconds(of.jobs, of) == pytest.approx(expected)
        assert 0 < layers <= 32
        seconds.append(machine.pass_seconds(of.jobs, of))
    assert kept_seconds < seconds[0] < seconds[1] < seconds[2] <= again_seconds


def test_passes_with_room_keep_their_activations(profile: StepProfile) -> None:
    of = asked("Llama-3.1-8B", 1, 2048, batch_size=16, jobs=1)
    small = asked("Llama-3.1-8B", 1, 2048).jobs[:1]
    machine, mixed = (
        Machine(profile),
        replace(of, jobs=(*of.jobs, replace(small[0], id=JobId("small")))),
    )
    assert machine.memory_model(mixed).kept is not None
    assert machine.pass_seconds(small, mixed) == profile.pass_seconds(small, mixed)
    evaluated = machine.evaluation_seconds(small, mixed)
    assert evaluated == profile.evaluation_seconds(small, mixed)


def test_a_width_is_part_of_the_question(profile: StepProfile) -> None:
    machine = Machine(profile)
    wide = [machine.memory_model(asked("Llama-3.1-70B", width, 512)).fixed for width in (4, 8)]
    assert wide[1] < wide[0] < machine.memory_model(asked("Llama-3.1-70B", 1, 512)).fixed


def test_one_job_that_fits_in_no_other_way_is_enough(profile: StepProfile) -> None:
    many, large = (asked("Llama-3.1-8B", 1, 2048, size, jobs) for size, jobs in ((4, 20), (16, 1)))
    one = replace(large.jobs[0], id=JobId("large"))
    mixed = replace(many, jobs=(*many.jobs, one))
    plain, again = (
        profile.memory_model(many),
        profile.kept(PLAIN, recompute=True).memory_model(many),
    )
    assert Machine(profile).memory_model(many) == plain  # it trains faster so
    assert Machine(profile).memory_model(mixed) == joined(plain, again)


@pytest.mark.parametrize(
    ("choices", "jobs"),
    [
        pytest.param(ExecutorChoices(max_jobs=3), 3, id="as many jobs as it is told"),
        pytest.param(ExecutorChoices(memory_gb=17), 0, id="the memory it is told"),
        pytest.param(ExecutorChoices(recompute=False), 11, id="activations kept"),
        pytest.param(ExecutorChoices(recompute=True), 45, id="activations computed again"),
        pytest.param(
            ExecutorChoices(recompute=False, storage=Storage(frozen_weights="nf4")),
            13,
            id="weights in 4 bits",
        ),
    ],
)
def test_what_a_study_says_of_its_executors(
    choices: ExecutorChoices, jobs: int, profile: StepProfile
) -> None:
    of = asked("Llama-3.1-8B", 1, 1024, jobs=60)
    memory = Machine(profile, choices).memory_model(of)
    fitting = [n for n in range(61) if memory.fits(of.jobs[:n], of.max_length)]
    assert max(fitting) == jobs


def test_what_is_packed_is_copied_and_takes_longer(profile: StepProfile) -> None:
    of = asked("Llama-3.1-70B", 4, 512)
    packed = Machine(profile, ExecutorChoices(storage=Storage(frozen_weights="nf4")))
    assert Machine(profile).is_split(of)
    assert not packed.is_split(of)
    assert packed.memory_model(of).fits(of.jobs[:1], of.max_length)
    bounded = ExecutorChoices(storage=Storage(frozen_weights="nf4"), memory_gb=30)
    assert not Machine(profile, bounded).is_split(of)
    large, small = asked("Llama-3.1-8B", 1, 512), Storage(frozen_weights="int8")
    machines = (Machine(profile), packed, Machine(profile, ExecutorChoices(storage=small)))
    seconds = [machine.pass_seconds(large.jobs, large) for machine in machines]
    assert seconds == sorted(set(seconds))  # the more codes there are, the longer it takes


@pytest.mark.parametrize(("backbone", "width"), [("Llama-3.1-8B", 1), ("Llama-3.1-70B", 4)])
def test_a_gpu_beside_a_smaller_one_has_no_more_memory(
    backbone: str, width: int, profile: StepProfile
) -> None:
    of = asked(backbone, width, 512)
    for gigabytes, capacity in ((None, 60_000_000_000), (50, 50_000_000_000)):
        machine = Machine(profile, ExecutorChoices(memory_gb=gigabytes))
        assert machine.within(60_000_000_000).memory_model(of).capacity == capacity


def test_names_of_storage() -> None:
    with pytest.raises(ValueError, match="frozen_weights must be one of plain, int8, nf4, got 'x'"):
        Storage(frozen_weights="x")


def test_a_study_is_simulated_as_its_executors_are_asked_to_train(tmp_path: Path) -> None:
    write_records(tmp_path / "train.jsonl", 20, seed=0)
    asked_for = "memory_gb: 5, max_jobs: 7, frozen_weights: int8, optimizer_states: int8"
    study = (
        f"name: s\nmodel: nobody/Llama-3.2-1B\ndata: {{ train: train.jsonl }}\n"
        f"executor: {{ {asked_for} }}\n"
    )
    (tmp_path / "study.yaml").write_text(study)
    workload = load_workload(tmp_path / "study.yaml").workload
    memory = workload.memory_of(workload.arrivals[0].task)
    assert (memory.capacity, memory.max_jobs) == (5_000_000_000, 7)
    plain = StepProfile(read_profile(SHIPPED)).memory_model(workload.arrivals[0].task)
    saved = 973_078_528 * (2 - 1 - 4 / 256 - 2 / 16)  # weights of 16 layers, one of them whole
    assert plain.fixed - memory.fixed == pytest.approx(saved, rel=0.05)
    assert memory.per_rank == pytest.approx(plain.per_rank * 12.03 / 18, rel=0.05)
