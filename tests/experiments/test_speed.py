"""Exhibits of measured steps, from rows and losses made up for it."""

from dataclasses import replace

import numpy as np

from alto_runs.costs.shapes import shape_of
from experiments.bf16_spread import apart
from experiments.throughput_curve import Point, points_of
from tests.sim.profiles import MACHINE, step_row

SMALL = shape_of("SmolLM2-135M")
MEASURED = replace(MACHINE, commit="abc")


def test_a_point_is_the_most_jobs_the_job_alone_and_peft() -> None:
    rows = [
        step_row(model=SMALL, jobs=1, seconds=0.1),
        step_row(model=SMALL, jobs=8, seconds=0.2),
        step_row(model=SMALL, jobs=32, seconds=0.4),
        step_row(model=SMALL, jobs=64, rank=64, seconds=0.1),
        step_row(model=SMALL, jobs=1, kernels="peft", seconds=1.0),
        step_row(model=SMALL, jobs=1, batch_size=4, kernels="peft", seconds=1.0),
    ]
    rows = [replace(row, machine=MEASURED) for row in rows]
    again = replace(rows[0], jobs=64, recompute=True)
    published = step_row(model=SMALL, jobs=1, kernels="peft", seconds=9.0)
    (point,) = points_of([*rows, again, published])
    assert point == Point("SmolLM2-135M", 512, 32, 32 * 512 / 0.4, 512 / 0.1, 512.0)


def test_differences_are_relative() -> None:
    losses = {"a": np.array([2.0, 3.0]), "b": np.array([2.0, 4.0])}
    assert apart(losses, "a", "b").tolist() == [0.0, 0.25]
