"""What runs on another kind of GPU, or over another backbone, tell of one."""

from dataclasses import replace
from pathlib import Path

import pytest

from alto_runs.files.executor_work import EvaluationWork, LaunchWork, TrainingWork
from alto_sim.times.overheads import NO_OVERHEADS
from alto_sim.times.writing import Writing
from experiments.fidelity.carried import Size, carried, size_of, sized
from experiments.fidelity.real_runs import Recording, read_recording
from experiments.fidelity.sources import Others, Source, others_of

TRACES = Path("traces")
HERE, THERE = "NVIDIA H100 80GB HBM3", "NVIDIA H200"


def read(name: str) -> Recording:
    return read_recording(TRACES / name)


def on(run: Recording, machine: str, passes: float, evaluations: float) -> Recording:
    """The same search there, whose passes and evaluations take so many times as long."""
    gpus = tuple(replace(gpu, kind=machine) for gpu in run.header.gpus)
    factors = {TrainingWork: passes, EvaluationWork: evaluations, LaunchWork: 9.0}
    work = tuple(replace(row, seconds=factors[type(row)] * row.seconds) for row in run.work)
    return replace(run, header=replace(run.header, gpus=gpus), work=work)


def test_passes_and_evaluations_are_carried_by_what_is_the_same_on_both() -> None:
    """Of any backbone; launches are the host's."""
    run, other = read("speed/llama-3.2-1b-fifo"), read("recorded/cosmosqa-alto")
    found = carried(run, THERE, [run, other, on(other, THERE, 0.75, 0.5)])
    for row, known in zip(found.work, run.work, strict=True):
        factor = {TrainingWork: 0.75, EvaluationWork: 0.5, LaunchWork: 1.0}[type(row)]
        assert row.seconds == pytest.approx(factor * known.seconds)
    assert carried(run, THERE, [run, other]).work == run.work


def test_executors_do_more_between_passes_of_more_layers_and_wider_adapters() -> None:
    slice_, whole = (
        read("slices/qasc-question-generation-1000-10-layers-alto"),
        read("speed/llama-3.2-1b-fifo"),
    )
    assert size_of(slice_).layers == 10
    assert size_of(whole).layers == 16
    assert size_of(whole).rank_bytes > 5 * size_of(slice_).rank_bytes
    known = replace(
        NO_OVERHEADS,
        recording=1.0,
        compiling=2.0,
        launch=3.0,
        launch_beside=4.0,
        report=5.0,
        leaving=Writing(alone=6.0, together=7.0, again=8.0),
    )
    found = sized(known, Size(10, 100), Size(20, 300))
    assert found == replace(
        known,
        recording=2.0,
        compiling=4.0,
        launch=9.0,
        launch_beside=12.0,
        leaving=Writing(alone=18.0, together=21.0, again=8.0),
    )


def test_a_backbone_that_nobody_else_recorded_here_is_told_from_elsewhere() -> None:
    run, other = read("speed/llama-3.2-1b-fifo"), read("h200/llama-3.2-1b-fifo")
    many = [read(f"recorded/{name}-alto") for name in ("cosmosqa", "ropes")]
    found = others_of(run, [run, other, *many, read("h200/llama-3.1-8b-fifo")])
    assert found.source is Source.CARRIED
    assert [one.name for one in found.runs] == [other.name]
    assert found.between == tuple(many)
    overheads, whole = found.fitted().overheads, Others(tuple(many)).fitted().overheads
    assert overheads.recording == pytest.approx(whole.recording * 16 / 30)
    assert overheads.report == whole.report
    alone = others_of(run, [run, *many])
    assert (alone.source, alone.runs, alone.between) == (Source.PROFILE, (), tuple(many))
    assert others_of(run, [run]).overheads() is None
