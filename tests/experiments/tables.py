"""Small full grids, written by hand, and what an exhibit says in rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId
from experiments.exhibits.exhibit import Exhibit
from experiments.grids.curve_sets import CurveSet

__all__ = ["grid", "rows_of"]


def grid(val: Sequence[Sequence[float]], batch_sizes: Sequence[int] = ()) -> CurveSet:
    """A job for each row, ten steps between reports; training losses equal the validation's."""
    losses = np.array(val, dtype=float)
    rows, columns = losses.shape
    jobs = tuple(
        Job(
            id=JobId(f"job-{row}"),
            hyperparameters=Hyperparameters(batch_size=batch_sizes[row] if batch_sizes else 1),
            steps=10 * columns,
            reports=columns,
        )
        for row in range(rows)
    )
    task = Task(id=TaskId("t"), jobs=jobs, backbone="any", max_length=8)
    return CurveSet("t", "by hand", False, task, losses.copy(), losses)


def rows_of(shown: Exhibit) -> list[dict[str, Any]]:
    """By column; of two columns of a name the second is `NAME'`."""
    names: list[str] = []
    for name in shown.table.columns:
        names.append(f"{name}'" if name in names else name)
    return [dict(zip(names, row, strict=True)) for row in shown.table.rows]
