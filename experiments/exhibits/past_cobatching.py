"""How many small jobs together are enough.

The paper: batching is on or off; it does not say how many jobs are enough.

Here: tokens a second of a fused pass against the number of jobs of batch 1 and rank 16 at 256
tokens, from the H100's profile, up to what its memory holds. *Enough* is the number from which
doubling adds less than a tenth.
"""

from dataclasses import replace
from itertools import pairwise

from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId
from alto_runs.costs.step_profile import Basis
from alto_runs.report.drawing import GRID, PALETTE, figure_of
from experiments.exhibits.exhibit import Exhibit, Table, Verdict
from experiments.exhibits.search_costs import BACKBONES, profile_of

__all__ = ["enough", "exhibit", "rates"]

_COUNTS = tuple(2**power for power in range(9))
_LENGTH, _GAIN = 256, 1.1


def rates(backbone: str) -> dict[int, float]:
    """Tokens a second by number of jobs, as far as they fit."""
    profile = profile_of()
    task = _task(backbone)
    memory = profile.memory_model(task)
    found: dict[int, float] = {}
    for count in _COUNTS:
        jobs = [replace(task.jobs[0], id=JobId(f"job-{number}")) for number in range(count)]
        if memory.fits(jobs, _LENGTH):
            found[count] = count * _LENGTH / profile.pass_seconds(jobs, task)
    return found


def enough(found: dict[int, float]) -> int | None:
    """The first number of jobs whose double is less than a tenth faster; None if it never is."""
    for count, double in pairwise(found):
        if found[double] < _GAIN * found[count]:
            return count
    return None


def exhibit() -> Exhibit:
    found = {backbone: rates(backbone) for backbone in BACKBONES}
    rows = [
        (backbone, count, rate, rate / own[1], _basis(backbone, count))
        for backbone, own in found.items()
        for count, rate in own.items()
    ]
    figure, axes = figure_of(3.2)
    for (backbone, own), colour in zip(found.items(), PALETTE, strict=False):
        gains = [rate / own[1] for rate in own.values()]
        axes.plot(list(own), gains, marker="o", ms=4, color=colour, label=backbone)
        beyond = [n for n in own if _basis(backbone, n) is not Basis.MEASURED]
        heights = [own[n] / own[1] for n in beyond]
        axes.plot(beyond, heights, "o", ms=4, color=colour, mfc="white")
        if (knee := enough(own)) is not None:
            axes.scatter(knee, own[knee] / own[1], s=90, marker="*", color=colour, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_xlabel("jobs of batch 1 together (256 tokens each); star: enough; hollow: modelled")
    axes.set_ylabel("tokens/s over one job's")
    axes.grid(color=GRID)
    axes.legend(frameon=False, fontsize=8)
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist="At batch 1 and 256 tokens, more jobs gain next to nothing from "
        + ", ".join(f"{enough(own)} jobs of {backbone}" for backbone, own in found.items())
        + " on.",
        found=tuple(
            f"{backbone}: enough at {enough(own) or 'more than fit'} jobs, "
            f"{own[max(own)] / own[1]:.0f} times one job's rate at {max(own)}; {max(own)} of the "
            "numbers tried fit into 80 GB."
            for backbone, own in found.items()
        ),
        table=Table(("backbone", "jobs", "tokens/s", "over one", "basis"), tuple(rows)),
        logs=("`kernels/profiles/h100.jsonl`",),
        seeds="Predictions from measured passes; *modelled* lies outside of what was measured.",
        figure=figure,
    )


def _basis(backbone: str, count: int) -> Basis:
    profile = profile_of()
    task = _task(backbone)
    jobs = [replace(task.jobs[0], id=JobId(f"job-{number}")) for number in range(count)]
    return profile.seconds(profile.work(jobs, task)).basis


def _task(backbone: str) -> Task:
    job = Job(id=JobId("job"), hyperparameters=Hyperparameters(), steps=1, reports=1)
    return Task(id=TaskId("t"), jobs=(job,), backbone=backbone, max_length=_LENGTH)
