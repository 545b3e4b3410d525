"""Recorded runs made up for a test: logs as a real run would have left them, and their answers."""

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from alto_policy.controller import Controller, run
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import Settings, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, Header, dump_entry, dump_header
from alto_policy.types import Gpu, GpuId, Hyperparameters, Job, JobId, Task, TaskId
from experiments.grids.curve_sets import CurveSet
from experiments.grids.table_backend import TableBackend

__all__ = ["ALTO", "RATES", "loss_of", "record"]

ALTO = AltoSettings()
RATES = (2e-5, 2e-4, 1e-3, 4e-3)

Loss = Callable[[Hyperparameters, float], float]


def loss_of(chosen: Hyperparameters, share: float) -> float:
    """The best rate is 1e-3, the best batch 2; each seed adds a hundredth. All curves fall."""
    away = abs(np.log2(chosen.learning_rate / 1e-3)) + abs(np.log2(chosen.batch_size / 2))
    return float(1 + away / 4 + chosen.seed / 100 + 1 / (1 + 20 * share))


def record(
    folder: Path,
    task: str,
    policy: Settings | None = None,
    *,
    seed: int = 0,
    batch_sizes: Sequence[int] = (1, 2, 4),
    samples: int = 400,
    reports: int = 20,
    loss: Loss = loss_of,
    answers: Callable[[Hyperparameters], float] | None = None,
    untuned: float = 0.125,
) -> None:
    """A run of one task in its folder; `answers`: half of them are whole ones."""
    jobs = tuple(
        Job(
            id=JobId(f"{task}-{number:02}"),
            hyperparameters=Hyperparameters(learning_rate=rate, batch_size=size, seed=seed),
            steps=-(-samples // size),
            reports=reports,
        )
        for number, (rate, size) in enumerate(product(RATES, batch_sizes))
    )
    val = np.array(
        [[loss(j.hyperparameters, (n + 1) / reports) for n in range(reports)] for j in jobs]
    )
    tuned = Task(id=TaskId(task), jobs=jobs, backbone="any", max_length=8)
    entries: list[Entry] = []
    gpus = (Gpu(id=GpuId(0), kind="table"),)
    policy = policy or FifoSettings()
    backend = TableBackend(CurveSet(task, "", False, tuned, val, val), range(len(jobs)), len(jobs))
    run(Controller(build(policy), Cluster(gpus), entries.append), backend)
    folder.mkdir(parents=True)
    lines = [dump_header(Header(policy=policy, gpus=gpus)), *map(dump_entry, entries)]
    (folder / "run.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if answers is not None:
        shares = [(None, untuned), *((str(j.id), answers(j.hyperparameters)) for j in jobs)]
        rows = [
            {"task": task, "job": job, "answers": share / 2, "tokens": share, "preferred": None}
            for job, share in shares
        ]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / "answers.jsonl").write_text(text)
