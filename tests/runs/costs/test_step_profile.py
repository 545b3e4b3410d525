"""Predicted seconds and bytes: right where it was measured, sane where it was not."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from alto_policy.events import TaskArrived
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId, TokenCounts
from alto_runs.costs.check import check_profile, check_text
from alto_runs.costs.gpus import sheet_of
from alto_runs.costs.shapes import KNOWN_SHAPES, shape_of
from alto_runs.costs.step_profile import Basis, StepProfile, work_of_row
from alto_runs.costs.work import SECOND_TERMS, Ceilings, PassWork, second_terms
from alto_runs.errors import UserError
from alto_runs.profile import EvaluationRow, GemmRow, StepRow, read_profile
from alto_sim.simulate import play
from alto_sim.workloads.workload import Workload
from tests.runs.costs.profiles import LLAMA_8B, MACHINE, SHIPPED, step_row
from tests.sim.cases import NOW, Flat, gpus

ROWS = read_profile(SHIPPED)
CHECK = check_profile(ROWS)
CARD = Ceilings(720e12, 3.0e12)


def job(name: str, rank: int = 16, batch_size: int = 1) -> Job:
    chosen = Hyperparameters(rank=rank, batch_size=batch_size)
    return Job(id=JobId(name), hyperparameters=chosen, steps=20, reports=4)


def task(jobs: list[Job], backbone: str = "meta-llama/Llama-3.1-8B", length: int = 512) -> Task:
    return Task(id=TaskId("t"), jobs=tuple(jobs), backbone=backbone, max_length=length)


@pytest.mark.parametrize("kernels", ["peft", "frozen-transformers", "frozen-compiled"])
def test_what_was_measured_is_what_is_predicted(kernels: str) -> None:
    profile = StepProfile(ROWS, kernels=kernels)
    measured = [r for r in ROWS if isinstance(r, StepRow) and r.kernels == kernels]
    errors = [profile.seconds(work_of_row(row)).value / row.seconds - 1 for row in measured]
    assert max(map(abs, errors)) < 0.03
    held = [row for row in measured if row.peak_bytes is not None]
    for row in held:
        assert profile.bytes(work_of_row(row)).value == pytest.approx(row.peak_bytes, rel=0.03)


def test_a_row_left_out_is_predicted_by_the_others() -> None:
    """The product's own promise; between rows four batch sizes apart it is held to 20 %."""
    assert CHECK.median_error < 0.06
    assert CHECK.median_inside is not None
    assert CHECK.median_inside < 0.05
    assert CHECK.worst_inside is not None
    assert CHECK.worst_inside < 0.2


def test_the_uncertainty_is_honest() -> None:
    """Nine in ten errors lie within twice the stated spread, and the spread is no blank cheque."""
    off = [abs(math.log(each.seconds / each.row.seconds)) / each.spread for each in CHECK.rows]
    assert sum(each < 2 for each in off) >= 0.9 * len(off)
    assert median(each.spread for each in CHECK.rows) < 0.12
    first, *others = CHECK.rows
    sure = replace(CHECK, rows=(replace(first, spread=abs(first.error) / 4), *others))
    assert CHECK.within_twice - sure.within_twice == pytest.approx(1 / len(CHECK.rows))
    assert f", {sure.within_twice:.0%} within twice their spread" in check_text(sure)


def test_measurements_that_contradict_each_other_are_less_certain() -> None:
    """Every other pass by a half longer, as on a host that others keep busy."""
    own = [row for row in ROWS if isinstance(row, StepRow) and row.kernels == "alto-triton"]
    rough = [replace(r, seconds=r.seconds * (1 + n % 2 / 2)) for n, r in enumerate(own)]
    calm, busy = (check_profile(rows) for rows in (own, rough))
    assert busy.within_twice >= 0.9
    assert median(r.spread for r in busy.rows) > 1.5 * median(r.spread for r in calm.rows)


def test_a_row_has_no_say_in_its_own_check() -> None:
    honest = [row for row in ROWS if isinstance(row, StepRow) and row.kernels == "peft"]
    wrong = replace(honest[1], seconds=3 * honest[1].seconds)
    found = check_profile([honest[0], wrong, *honest[2:]]).rows[1]
    assert found.row is wrong
    assert found.error == pytest.approx(-2 / 3, abs=0.1)


def test_bytes_are_checked_as_well() -> None:
    """Of rows that tell them, by others that do: half within 4 %, those of our kernels within a
    quarter."""
    errors = {each.row: e for each in CHECK.rows if (e := each.bytes_error) is not None}
    assert set(errors) == {each.row for each in CHECK.rows if each.row.peak_bytes is not None}
    assert median(map(abs, errors.values())) < 0.04
    ours = [abs(e) for row, e in errors.items() if row.kernels == "alto-triton"]
    assert len(ours) > 10
    assert max(ours) < 0.25
    assert f"bytes of {len(errors)}: median" in check_text(CHECK)
    silent = [replace(row, peak_bytes=None) for row in ROWS if isinstance(row, StepRow)]
    assert "bytes" not in check_text(check_profile(silent))


def test_a_row_has_no_say_in_the_check_of_its_bytes() -> None:
    honest = [row for row in ROWS if isinstance(row, StepRow) and row.kernels == "alto-triton"]
    assert honest[1].peak_bytes is not None
    wrong = replace(honest[1], peak_bytes=3 * honest[1].peak_bytes)
    found = check_profile([honest[0], wrong, *honest[2:]]).rows[1]
    assert found.row is wrong
    assert found.bytes_error == pytest.approx(-2 / 3, abs=0.15)


def test_the_check_is_a_table() -> None:
    text = check_text(CHECK)
    assert len(text.splitlines()) == len(CHECK.rows) + 4
    assert "median error" in text
    told = [tuple(line.split()[2:6]) for line in text.splitlines()[1:-3]]
    rows = [(row.jobs, row.batch_size, row.length, row.rank) for row in (r.row for r in CHECK.rows)]
    assert sorted(told) == sorted(tuple(map(str, row)) for row in rows)


def test_a_profile_without_rows_to_check_is_named() -> None:
    others = [row for row in ROWS if not isinstance(row, StepRow)]
    with pytest.raises(UserError, match=r"^mine\.jsonl: .* two StepRows or more .*, got CopyRow, "):
        check_profile(others, "mine.jsonl")


def planted(work: PassWork, factors: tuple[float, ...]) -> float:
    """A machine that obeys the physics, with factors of its own."""
    terms = [f * t for f, t in zip(factors, second_terms(work, CARD), strict=True)]
    return math.hypot(terms[0], sum(terms[1:]))


def planted_rows(factors: tuple[float, ...]) -> list[StepRow | GemmRow]:
    rows = [
        step_row(jobs=jobs, rank=rank, batch_size=batch_size)
        for jobs in (1, 4, 32)
        for rank in (8, 64)
        for batch_size in (1, 4)
    ]
    return [replace(row, seconds=planted(work_of_row(row), factors)) for row in rows]


def test_a_mix_of_jobs_is_predicted_from_equal_ones() -> None:
    """Ranks and batch sizes that no row has, on a machine unlike what is expected."""
    factors = (1e-3, 1.2, 3.0, 2.0, 2.0, 3.0, 3.0, 3e-4)
    profile = StepProfile(planted_rows(factors))
    mix = [job(f"j{i}", rank=8 * (1 + i % 6), batch_size=1 + i % 4) for i in range(11)]
    work = profile.work(mix, task(mix))
    found = profile.seconds(work)
    assert work.ranks == sum(each.hyperparameters.rank for each in mix)
    assert found.value == pytest.approx(planted(work, factors), rel=0.05)
    assert found.basis is Basis.MEASURED
    assert len(factors) == len(SECOND_TERMS)


def test_far_outside_the_physics_holds_and_doubt_grows() -> None:
    profile = StepProfile(ROWS, kernels="peft")
    inside = profile.work([job("a", batch_size=4)], task([job("a")]))
    works = [replace(inside, tokens=n * 4096, rank_tokens=n * 4096 * 16) for n in (4, 64, 128)]
    near, far, farther = (profile.seconds(work) for work in works)
    assert profile.seconds(inside).basis is Basis.MEASURED
    assert near.basis is far.basis is Basis.MODELLED
    assert farther.value / far.value == pytest.approx(2, rel=0.02)  # arithmetic alone is left
    assert profile.seconds(inside).spread < near.spread <= farther.spread


def test_more_work_never_takes_less_time() -> None:
    profile = StepProfile(ROWS)
    jobs = [job(f"j{i}") for i in range(64)]
    of = task(jobs)
    counts = [profile.pass_seconds(jobs[:n], of) for n in range(1, 65)]
    assert all(later > earlier * 0.99 for earlier, later in pairwise(counts))
    ranks = [profile.pass_seconds([job("a", rank=rank)] * 8, of) for rank in (8, 32, 128)]
    assert ranks == sorted(ranks)


def test_adapters_over_rows_of_the_frozen_backbone_are_an_estimate() -> None:
    profile = StepProfile(ROWS, kernels="frozen-liger")
    jobs = [job(f"j{i}") for i in range(16)]
    found = profile.seconds(profile.work(jobs, task(jobs)))
    frozen = next(
        row
        for row in ROWS
        if isinstance(row, StepRow) and row.kernels == profile.kernels and row.batch_size == 16
    )
    assert found.basis is Basis.ESTIMATED
    assert 1.03 < found.value / frozen.seconds < 1.25


def test_answers_come_from_the_rows_of_our_own_kernels() -> None:
    """As measured: 16 jobs of the 8B shape, 512 tokens each, in 0.473 s; 17,322 tokens a second."""
    profile = StepProfile(ROWS)
    jobs = [job(f"j{i}") for i in range(16)]
    found = profile.seconds(profile.work(jobs, task(jobs)))
    assert profile.kernels == "alto-triton"
    assert found.basis is Basis.MEASURED
    assert 16 * 512 / found.value == pytest.approx(17_322, rel=0.03)
    assert profile.memory_model(task(jobs)).fits(jobs, 512)


def test_another_card_scales_by_its_data_sheet() -> None:
    jobs = [job(f"j{i}", batch_size=8) for i in range(8)]
    of = task(jobs)
    here, there = StepProfile(ROWS, kernels="peft"), StepProfile(ROWS, kernels="peft", gpu="A100")
    slower = there.pass_seconds(jobs, of) / here.pass_seconds(jobs, of)
    by_flops = sheet_of("H100").flops_per_second / sheet_of("A100").flops_per_second
    by_bytes = sheet_of("H100").bytes_per_second / sheet_of("A100").bytes_per_second
    assert by_bytes < slower < by_flops
    small = [job("a")]
    few = task(small, backbone="HuggingFaceTB/SmolLM2-135M", length=64)
    assert there.pass_seconds(small, few) == pytest.approx(here.pass_seconds(small, few), rel=0.02)
    work = there.work(jobs, of)
    assert there.seconds(work).basis is Basis.ESTIMATED
    scaling = 0.15  # what a data sheet is off by, on top
    assert there.seconds(work).spread >= math.hypot(here.seconds(work).spread, scaling)


def test_memory_is_linear_and_agrees_with_the_bytes() -> None:
    profile = StepProfile(ROWS, kernels="peft")
    jobs = [job("a", batch_size=4), job("b", rank=64, batch_size=2)]
    of = task(jobs)
    model = profile.memory_model(of, max_jobs=7)
    predicted = profile.bytes(profile.work(jobs, of)).value
    assert model.bytes(jobs, of.max_length) == pytest.approx(predicted, rel=0.1)
    assert model.per_rank == pytest.approx(18 * LLAMA_8B.adapter_parameters, rel=0.1)
    assert model.capacity == 76_000_000_000
    assert model.max_jobs == 7


def test_recomputation_trades_time_for_memory() -> None:
    jobs = [job("a", batch_size=8)]
    plain, again = (
        StepProfile(ROWS, kernels="peft"),
        StepProfile(ROWS, kernels="peft", recompute=True),
    )
    work = (plain.work(jobs, task(jobs)), again.work(jobs, task(jobs)))
    assert 1.2 < again.seconds(work[1]).value / plain.seconds(work[0]).value < 1.5
    assert again.bytes(work[1]).value < 0.7 * plain.bytes(work[0]).value
    assert again.seconds(work[1]).basis is Basis.MODELLED


def test_evaluations_follow_their_measurements() -> None:
    one = [job("a")]
    plain = StepProfile(ROWS, kernels="peft", validation_sequences=100)
    expected = plain.evaluation_seconds(one, task(one))
    row = EvaluationRow(
        machine=MACHINE,
        model=LLAMA_8B,
        dtype="bfloat16",
        kernels="peft",
        jobs=1,
        rank=16,
        sequences=100,
        length=512,
        seconds=2 * expected,
    )
    measured = StepProfile((*ROWS, row), kernels="peft", validation_sequences=100)
    assert measured.evaluation_seconds(one, task(one)) == pytest.approx(2 * expected, rel=0.2)
    assert measured.evaluation_seconds(one * 3, task(one)) == pytest.approx(
        3 * measured.evaluation_seconds(one, task(one)), rel=0.1
    )
    assert plain.evaluation_seconds([], task(one)) == 0


def test_known_tokens_stand_for_the_longest_sequences() -> None:
    profile = StepProfile(ROWS, validation_sequences=64)
    one = [job("a")]
    longest = replace(task(one), max_length=2048)
    known = replace(longest, tokens=TokenCounts(per_sample=511.6, validation=512 * 64))
    short = replace(longest, max_length=512)
    assert profile.pass_seconds(one, known) == profile.pass_seconds(one, short)
    assert profile.pass_seconds(one, known) < profile.pass_seconds(one, longest)
    assert profile.evaluation_seconds(one, known) == profile.evaluation_seconds(one, short)
    twice = replace(known, tokens=TokenCounts(per_sample=511.6, validation=2 * 512 * 64))
    assert profile.evaluation_seconds(one, twice) > 1.5 * profile.evaluation_seconds(one, known)


def test_a_simulation_takes_its_time_from_a_profile() -> None:
    profile = StepProfile(ROWS)
    jobs = [job(f"j{i}", batch_size=1 + i % 4) for i in range(6)]
    of = task(jobs)
    workload = Workload(
        arrivals=(TaskArrived(0.0, of),),
        curves=Flat(),
        step_time=profile,
        latencies=NOW,
        memory=profile.memory_model(of),
    )
    entries: list[Entry] = []
    play(workload, FifoSettings(), gpus(), entries.append)
    evaluations = 4 * profile.evaluation_seconds(jobs, of)
    together = 20 * profile.pass_seconds(jobs, of)
    assert entries[-1].event.t == pytest.approx(evaluations + together)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"kernels": "warp"}, "kernels: value 'warp': expected one of peft"),
        ({"gpu": "Abacus"}, "no data sheet of it, expected one of H100"),
    ],
)
def test_what_is_not_known_is_named(options: dict[str, str], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        StepProfile(ROWS, **options)  # type: ignore[arg-type]  # the flags of a command line


def test_a_profile_without_steps_predicts_nothing() -> None:
    with pytest.raises(UserError, match="no StepRow"):
        StepProfile([row for row in ROWS if isinstance(row, GemmRow)])


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("models/smollm2-135m", "SmolLM2-135M"),
        ("Qwen2.5-0.5B.gguf", "Qwen2.5-0.5B"),
    ],
)
def test_a_shape_is_found_by_name(backbone: str, name: str) -> None:
    assert shape_of(backbone).name == name


def test_a_folder_of_another_name_is_what_its_configuration_tells(tmp_path: Path) -> None:
    told = {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192}
    told |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**told, "tie_word_embeddings": True}))
    known = next(shape for shape in KNOWN_SHAPES if shape.name == "Llama-3.2-1B")
    assert shape_of(str(folder)) == replace(known, name="mine")
    for damaged in ("{", "[]", json.dumps({**told, "num_attention_heads": 0}), "{}"):
        (folder / "config.json").write_text(damaged)
        with pytest.raises(UserError, match="its shape is not known"):
            shape_of(str(folder))


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(UserError, match="model: value 'gpt-2': its shape is not known"):
        shape_of("gpt-2")
    with pytest.raises(UserError, match="not known"):
        shape_of("Llama-3.1-80B")


@pytest.mark.parametrize(
    ("name", "billions"),
    [("Llama-3.1-70B", 70.6), ("Qwen2.5-32B", 32.8), ("Qwen2.5-7B", 7.6), ("Llama-3.2-1B", 1.24)],
)
def test_shapes_have_their_published_sizes(name: str, billions: float) -> None:
    shape = next(shape for shape in KNOWN_SHAPES if shape.name == name)
    assert shape.parameters == pytest.approx(billions * 1e9, rel=0.01)
