"""Figure 13: adapter parallelism against other ways to spread a backbone over four GPUs.

The paper: 8 adapters on 4 H100, 256 tokens, per-adapter batch 1 to 8: adapter parallelism is up to
4.7 times as fast as FSDP, at batch 2. Other heights are not printed, the model is not named. FSDP
below batch 4 is estimated by padding the batch to 4.

Here: simulated, not measured: passes of a Llama-3.1-70B from the H100's profile (by its physics; no
70B was measured), gathers at 360 GB/s, all-reduces of tensor parallelism at the same rate, twice in
each layer and direction. FSDP trains one adapter at a time and splits its batch; FSDP padded gives
each rank a whole sample where there are fewer than ranks; tensor parallelism trains one at a time.

The paper against itself: appendix A.1 says that ranks must process equally many tokens of each
adapter "to avoid mismatches during gradient all-reduce"; by section 6.2 there is no such
all-reduce. What stalls is the lock-step of the gathers.
"""

from dataclasses import dataclass
from functools import cache

from matplotlib.figure import Figure

from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId
from alto_runs.costs.step_profile import StepProfile
from alto_runs.profile import read_profile, shipped_profile
from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from experiments.exhibit import Exhibit, Table, Verdict
from experiments.sharded import GATHER_BYTES_PER_SECOND, Sharded

__all__ = ["Spread", "exhibit", "spread"]

_BATCH_SIZES = (1, 2, 4, 8)
_RANKS, _ADAPTERS, _LENGTH = 4, 8, 256
_PAPER_PEAK = 4.7  # at batch 2
_MODELS = ("Llama-3.1-70B", "Llama-3.1-8B")


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds in which all adapters make one step."""

    adapter_parallel: float
    fsdp: float  # the batch split; ranks beyond the batch have nothing of it
    fsdp_padded: float  # a rank without a sample of the adapter computes one of padding
    tensor_parallel: float


def spread(backbone: str, batch_size: int) -> Spread:
    single, wide = _profiles()
    times = Sharded(single, wide)
    jobs = [_job(number, batch_size) for number in range(_ADAPTERS)]
    task = Task(
        id=TaskId("t"), jobs=tuple(jobs), backbone=backbone, max_length=_LENGTH, num_gpus=_RANKS
    )
    turns = Sharded(single, wide, adapter_parallel=False)
    one_by_one = _ADAPTERS * turns.pass_seconds([jobs[0]], task) / _RANKS
    padded = _job(0, max(batch_size, _RANKS))
    shape = wide.shape_of(task)
    # A ring all-reduce moves twice the activations; two in each layer forward, two backward.
    moved = 4 * shape.layers * 2 * 2 * batch_size * _LENGTH * shape.hidden * (_RANKS - 1) / _RANKS
    compute = max(
        wide.pass_seconds([jobs[0]], task) / _RANKS, _launch_floor(wide, task, batch_size)
    )
    return Spread(
        adapter_parallel=times.pass_seconds(jobs[: _ADAPTERS // _RANKS], task),
        fsdp=one_by_one,
        fsdp_padded=_ADAPTERS * turns.pass_seconds([padded], task) / _RANKS,
        tensor_parallel=_ADAPTERS * (compute + moved / GATHER_BYTES_PER_SECOND),
    )


def exhibit() -> Exhibit:
    rows: list[tuple[str | float | int, ...]] = []
    for model in _MODELS:
        for batch_size in _BATCH_SIZES:
            found = spread(model, batch_size)
            rows.append(
                (
                    model,
                    batch_size,
                    found.fsdp / found.adapter_parallel,
                    found.fsdp / found.fsdp_padded,
                    found.fsdp / found.tensor_parallel,
                    found.adapter_parallel,
                )
            )
    peaks = {model: max((row[2], row[1]) for row in rows if row[0] == model) for model in _MODELS}
    return Exhibit(
        verdict=Verdict.CANNOT,
        found=(
            *(
                f"{model}: adapter parallelism is at most {peak:.1f} times as fast as FSDP, at "
                "batch "
                f"{batch} (paper: {_PAPER_PEAK} at batch 2)."
                for model, (peak, batch) in peaks.items()
            ),
            "What it wins at small batches is that one gather of the weights serves eight adapters "
            "in place of one, and that no rank is idle; where arithmetic takes longer than "
            "gathering "
            "the ratio falls towards 1. Under this model it never is slower than FSDP.",
            "No run on four GPUs stands behind it, so that it cannot tell whether the paper's 4.7 "
            "is "
            "right.",
        ),
        table=Table(
            ("model", "batch", "adapter parallel", "FSDP padded", "tensor parallel", "seconds"),
            tuple(rows),
        ),
        logs=("`kernels/profiles/h100.jsonl`",),
        seeds="A model without randomness: no error bars.",
        figure=_draw(rows),
    )


@cache
def _profiles() -> tuple[StepProfile, StepProfile]:
    rows = read_profile(shipped_profile())
    return StepProfile(rows), StepProfile(rows, recompute=True)


def _job(number: int, batch_size: int) -> Job:
    chosen = Hyperparameters(rank=16, batch_size=batch_size)
    return Job(id=JobId(f"job-{number}"), hyperparameters=chosen, steps=1, reports=1)


def _launch_floor(profile: StepProfile, task: Task, batch_size: int) -> float:
    """Seconds that the host needs to launch the kernels of a pass, however small it is."""
    tiny = Task(id=TaskId("tiny"), jobs=task.jobs, backbone=task.backbone, max_length=1)
    return profile.pass_seconds([_job(0, 1)], tiny)


def _draw(rows: list[tuple[str | float | int, ...]]) -> Figure:
    figure, panels = panels_of(3.2, len(_MODELS))
    names = ("adapter parallel", "FSDP padded", "tensor parallel")
    for axes, model in zip(panels, _MODELS, strict=True):
        for number, name in enumerate(names):
            heights = [float(row[2 + number]) for row in rows if row[0] == model]
            places = [place + 0.27 * (number - 1) for place in range(len(heights))]
            drawn = axes.bar(places, heights, 0.25, color=PALETTE[number], label=name)
            axes.bar_label(drawn, fmt="%.1f", fontsize=7, color=INK)
        axes.axhline(1.0, color=INK, lw=0.8, ls=":")
        axes.set_xticks(range(len(_BATCH_SIZES)), [str(size) for size in _BATCH_SIZES])
        axes.set_title(f"{model}, simulated", fontsize=9, color=INK)
        axes.set_xlabel("batch size of each of 8 adapters, 4 GPUs")
        axes.grid(axis="y", color=GRID)
    panels[0].set_ylabel("speed-up over FSDP")
    panels[0].legend(fontsize=7, frameon=False)
    return figure
