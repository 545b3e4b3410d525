"""Figure 13: adapter parallelism against FSDP, 8 adapters on 4 GPUs.

The paper: speed-ups over FSDP on 4 H100, 8 adapters, 256 tokens, adapter batch 1 to 8. Adapter
parallelism peaks at 4.7 times at batch 2; at 4 and 8 it keeps an edge. Below batch 4 FSDP is
estimated by filling its batch up to the ranks with dummy data. The model is not named.

Here: the same points on 4 H100, in the shapes of three models, random weights, rank 16, bfloat16.
FSDP is FSDP2 over PEFT, the jobs one after another, batches filled up to the ranks; only tokens
that a job asked for are counted. The paper's mLoRA, LoRAFusion and tensor parallelism were not run.

The paper against itself: appendix A.1 says that ranks must process equally many tokens of each
adapter "to avoid mismatches during gradient all-reduce"; by section 6.2 there is no such
all-reduce. What stalls is the lock-step of the gathers.
"""

from collections.abc import Iterable, Sequence

from alto_runs.profile import GangRow, read_profile, shipped_profile
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of, tell_values
from experiments.exhibit import Exhibit, Table, Verdict

__all__ = ["exhibit", "speedup"]

_PROFILE, _OF_TWO_GPUS = "h100x4.jsonl", "h100x2.jsonl"
_OURS, _PEER, _ALONE = "adapter-parallel", "fsdp2-peft", "one-gpu"
_LABELS = {_OURS: "adapter parallelism", _PEER: "FSDP2 with PEFT"}
_JOBS, _LENGTH, _BATCHES = 8, 256, (1, 2, 4, 8)
_PAPER_PEAK, _PAPER_PEAK_BATCH = 4.7, 2
_SCALED_JOBS = 32  # the GPUs are full


def exhibit() -> Exhibit:
    rows, of_two = _gangs(_PROFILE), _gangs(_OF_TWO_GPUS)
    models = tuple(dict.fromkeys(row.model.name for row in rows))
    figure, panels = panels_of(3.2, len(models))
    for axes, model in zip(panels, models, strict=True):
        for place, method in enumerate((_OURS, _PEER)):
            found = _series(rows, model, method)
            batches, speeds = [at for at, _ in found], [speed for _, speed in found]
            axes.plot(batches, speeds, "o-", color=PALETTE[place], label=_LABELS[method])
            if not found:
                told = f"{_LABELS[method]} was not measured"
                axes.text(0.98, 0.04, told, ha="right", c=MUTED, size=8, transform=axes.transAxes)
        axes.set_title(model, fontsize=9, color=INK)
        axes.set_xscale("log", base=2)
        axes.set_xticks(_BATCHES, map(str, _BATCHES))
        axes.set_yscale("log")
        tell_values(axes.yaxis)
        axes.grid(axis="y", color=GRID)
        axes.set_xlabel("sequences in a job's batch")
    panels[0].set_ylabel("tokens/s on 4 GPUs")
    panels[0].legend(frameon=False, fontsize=8)
    gains = {
        (model, batch): gain
        for model in models
        for batch in _BATCHES
        if (gain := speedup(rows, model, batch)) is not None
    }
    return Exhibit(
        verdict=_verdict(gains),
        found=(*_sentences(rows, models, gains), *_scaling_on_two(of_two)),
        table=Table(
            (
                "model", "method", "GPUs", "jobs", "batch", "tokens", "tokens/s", "over FSDP2",
                "received, GB", "exposed, ms",
            ),
            tuple(_line(row, rows) for row in rows),
        ),
        logs=tuple(f"`kernels/profiles/{name}`" for name in (_PROFILE, _OF_TWO_GPUS)),
        seeds="Medians of five steps in one call on one machine, no error bars.",
        figure=figure,
    )  # fmt: skip


def _gangs(profile: str) -> list[GangRow]:
    return [row for row in read_profile(shipped_profile(profile)) if isinstance(row, GangRow)]


def speedup(rows: Iterable[GangRow], model: str, batch_size: int) -> float | None:
    """Of adapter parallelism over FSDP2, at the paper's point; None where one was not measured."""
    speeds = {
        row.method: row.tokens_per_second
        for row in rows
        if (row.model.name, row.jobs, row.batch_size, row.length)
        == (model, _JOBS, batch_size, _LENGTH)
    }
    return speeds[_OURS] / speeds[_PEER] if {_OURS, _PEER} <= speeds.keys() else None


def _verdict(gains: dict[tuple[str, int], float]) -> Verdict:
    """The paper's height, and its peak at the same batch size."""
    reached = [gain for (_, batch), gain in gains.items() if batch == _PAPER_PEAK_BATCH]
    if min(reached) < _PAPER_PEAK:
        return Verdict.NOT_REPRODUCED
    models = {model for model, _ in gains}
    peaks = {max(_BATCHES, key=lambda b: gains.get((model, b), 0.0)) for model in models}
    return Verdict.REPRODUCED if peaks == {_PAPER_PEAK_BATCH} else Verdict.PARTLY


def _sentences(
    rows: Sequence[GangRow], models: Sequence[str], gains: dict[tuple[str, int], float]
) -> Iterable[str]:
    for model in models:
        told = [f"{gains[model, b]:.1f} at batch {b}" for b in _BATCHES if (model, b) in gains]
        if told:
            yield f"{model}: times FSDP2 {', '.join(told)}; {_where_from(rows, model)}."
        else:
            yield f"{model}: FSDP2 was not measured."
    for model in models:
        if (share := _of_perfect_scaling(rows, model)) is not None:
            yield (
                f"{model}, {_SCALED_JOBS} jobs of 1024 tokens: {share:.3f} of four times the "
                "tokens/s of one GPU."
            )


def _where_from(rows: Iterable[GangRow], model: str) -> str:
    """How much of it one GPU has already, by training all jobs in one pass."""
    speeds = {
        row.method: row.tokens_per_second
        for row in rows
        if (row.model.name, row.jobs, row.batch_size, row.length)
        == (model, _JOBS, _PAPER_PEAK_BATCH, _LENGTH)
    }
    alone, ours = speeds[_ALONE] / speeds[_PEER], speeds[_OURS] / speeds[_ALONE]
    return (
        f"at batch {_PAPER_PEAK_BATCH} one GPU with all jobs in one pass is {alone:.1f} times "
        f"FSDP2 on four, and four are {ours:.2f} times the one, too few tokens for each"
    )


def _of_perfect_scaling(rows: Iterable[GangRow], model: str) -> float | None:
    full = {
        row.method: row
        for row in rows
        if row.model.name == model and row.jobs == _SCALED_JOBS and row.length == 1024
    }
    if not {_OURS, _ALONE} <= full.keys():
        return None
    ours, alone = full[_OURS], full[_ALONE]
    return ours.tokens_per_second / (ours.gpus * alone.tokens_per_second)


def _scaling_on_two(rows: Sequence[GangRow]) -> Iterable[str]:
    """With layers that stay whole, and with fewer multiprocessors for the collectives."""
    alone = next(r for r in rows if r.method == _ALONE and r.jobs == _SCALED_JOBS)
    for row in rows:
        if row.method == _OURS and row.jobs == _SCALED_JOBS:
            share = row.tokens_per_second / (row.gpus * alone.tokens_per_second)
            how = row.machine.source.partition(";")[0].removeprefix("experiments/")
            yield (
                f"{row.model.name} on two GPUs, {_SCALED_JOBS} jobs of {row.length} tokens, "
                f"{how}: {share:.3f} of twice the tokens/s of one GPU."
            )


def _series(rows: Iterable[GangRow], model: str, method: str) -> list[tuple[int, float]]:
    return sorted(
        (row.batch_size, row.tokens_per_second)
        for row in rows
        if (row.model.name, row.method, row.jobs, row.length) == (model, method, _JOBS, _LENGTH)
    )


def _line(row: GangRow, rows: Sequence[GangRow]) -> tuple[str | int | float | None, ...]:
    gain = speedup(rows, row.model.name, row.batch_size) if row.method == _OURS else None
    is_of_figure = (row.jobs, row.length) == (_JOBS, _LENGTH)
    received, exposed = row.received_bytes, row.exposed_seconds
    return (
        row.model.name, row.method, row.gpus, row.jobs, row.batch_size, row.length,
        round(row.tokens_per_second), gain if is_of_figure else None,
        None if received is None else received / 1e9, None if exposed is None else 1e3 * exposed,
    )  # fmt: skip
