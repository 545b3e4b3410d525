"""Exhibits of measured steps, from rows and losses made up for it."""

from dataclasses import replace

import numpy as np

from alto_runs.costs.shapes import shape_of
from alto_runs.profile import Direction, KernelRow, StepRow
from experiments.exhibits.bf16_spread import apart, no_larger
from experiments.exhibits.table2_kernels import over_alone, ratios, side_by_side
from experiments.exhibits.throughput_curve import Point, points_of
from tests.runs.costs.profiles import MACHINE, step_row

SMALL = shape_of("SmolLM2-135M")
MEASURED = replace(MACHINE, commit="abc")


def test_a_point_is_the_most_jobs_the_job_alone_and_peft() -> None:
    rows = [
        step_row(model=SMALL, jobs=1, seconds=0.1),
        step_row(model=SMALL, jobs=8, seconds=0.2),
        step_row(model=SMALL, jobs=32, seconds=0.4),
        step_row(model=SMALL, jobs=64, rank=64, seconds=0.1),
        step_row(model=SMALL, jobs=1, kernels="peft", seconds=1.0),
        step_row(model=SMALL, jobs=1, kernels="peft", seconds=1.5),
        step_row(model=SMALL, jobs=1, batch_size=4, kernels="peft", seconds=1.0),
    ]
    rows = [replace(row, machine=MEASURED) for row in rows]
    again = replace(rows[0], jobs=64, recompute=True)
    published = step_row(model=SMALL, jobs=1, kernels="peft", seconds=9.0)
    lonely = replace(rows[0], batch_size=4)
    (point,) = points_of([*rows, again, published, lonely])
    assert point == Point("SmolLM2-135M", 512, 32, 32 * 512 / 0.4, 512 / 0.1, 512.0)


def test_differences_are_relative() -> None:
    losses = {"a": np.array([2.0, 3.0]), "b": np.array([2.0, 4.0])}
    assert apart(losses, "a", "b").tolist() == [0.0, 0.25]


def test_a_difference_counts_beyond_what_seeds_differ_by() -> None:
    theirs = np.array([1.0, 2.0, 3.0])
    assert no_larger(theirs, theirs)
    assert no_larger(theirs + np.array([0.5, -0.5, 0.3]), theirs)
    assert not no_larger(theirs + np.array([0.5, 0.4, 0.6]), theirs)
    assert no_larger(theirs - np.array([0.5, 0.4, 0.6]), theirs)


def kernel_row(
    kernels: str, outputs: int, times: float, commit: str | None = "new", source: str = ""
) -> KernelRow:
    return KernelRow(
        machine=replace(MACHINE, commit=commit, source=source),
        op="lora-linear",
        kernels=kernels,
        dtype="bfloat16",
        direction=Direction.BOTH,
        inputs=64,
        outputs=outputs,
        tokens=128,
        jobs=4,
        rank=16,
        seconds=times,
        base_seconds=1.0,
    )


def test_kernels_are_compared_in_the_shapes_of_ours_and_at_a_known_commit() -> None:
    rows = [
        *(kernel_row("alto-triton", 64, 1.5, "old"), kernel_row("alto-triton", 64, 1.2)),
        kernel_row("alto-triton", 128, 1.1),
        kernel_row("alto-triton", 256, 9.0, source="ragged"),
        *(kernel_row("loop", 128, 4.0), kernel_row("loop", 64, 2.0)),
        *(kernel_row("loop", 64, 7.0, None), kernel_row("loop", 512, 8.0)),
        kernel_row("grouped-mm", 128, 3.0),
    ]
    assert ratios(rows, "alto-triton", 4, 16) == [1.2, 1.1]
    assert ratios(rows, "loop", 4, 16) == [2.0, 4.0]
    assert ratios(rows, "grouped-mm", 4, 16) == [3.0]
    assert ratios(rows, "loop", 8, 16) == []


def test_a_whole_step_is_set_beside_the_peer_of_its_own_commit() -> None:
    model = shape_of("Llama-3.2-1B")

    def row(kernels: str, jobs: int, seconds: float, commit: str | None) -> StepRow:
        made = step_row(model=model, kernels=kernels, jobs=jobs, seconds=seconds)
        return replace(made, machine=replace(MACHINE, commit=commit))

    ours, peer = row("alto-triton", 32, 1.0, "new"), row("peft", 1, 2.0, "new")
    others = [row("peft-alone", 1, 3.0, "old"), row("peft", 1, 4.0, None)]
    assert side_by_side([ours, peer, *others]) == (ours, peer)
    assert side_by_side([ours, *others]) == (ours, others[0])


def test_whole_steps_are_told_by_the_batches_of_the_paper() -> None:
    points = [
        Point("Llama-3.2-1B", 128, 32, 9.0, None, 1.0),
        Point("Llama-3.2-1B", 512, 32, 8.0, None, 2.0),
        Point("Llama-3.2-1B", 1024, 16, 6.0, None, None),
        Point("Llama-3.2-1B", 2048, 8, 6.0, 3.0, 2.0),
        Point("Llama-3.1-8B", 1024, 8, 1.0, 1.0, 1.0),
    ]
    assert over_alone(points) == {1: (32, 4.0), 4: (8, 3.0)}
