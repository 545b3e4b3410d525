"""Figure 13: adapter parallelism against FSDP, 8 adapters on 4 GPUs.

The paper: speed-ups over FSDP on 4 H100, 8 adapters, 256 tokens, adapter batch 1 to 8. Adapter
parallelism peaks at 4.7 times at batch 2; at 4 and 8 it keeps an edge, and mLoRA and tensor
parallelism fall below FSDP. Below batch 4 FSDP is estimated by filling its batch up to the ranks
with dummy data: at batch 2 half of its work is padding. The model is not named, nor are other
heights printed.

Here: the same points in the shapes of three models, random weights, rank 16, bfloat16, on 4 H200
(8B, 1B: all of 8 and 32 jobs, batch 1 to 8, 256 and 1,024 tokens) and on 4 H100 (32B as well; all
layers in shards, or some of them whole on each GPU). FSDP is FSDP2 over PEFT, the jobs one after
another, batches filled up to the ranks; only tokens that a job asked for are counted. Speed-ups are
over FSDP2 in the same run. A panel shows one run, the latest of those with most points beside
FSDP2; points of a run that had none beside them are dashed. Passes of few tokens are recorded as
CUDA graphs in the panels of H200; that of 4 H100 is older. *Gathered*: the shards of a layer come
to all GPUs by NCCL; *copied*: each GPU takes them out of the memory of the others; *travelling*:
the tokens go to the shards; *adapter-parallel*: the cheapest way that there was then; *copies*:
each GPU has the whole backbone; *one-gpu*: one has, and trains alone. The paper's mLoRA, LoRAFusion
and tensor parallelism were not run.

The paper against itself: appendix A.1 says that ranks must process equally many tokens of each
adapter "to avoid mismatches during gradient all-reduce"; by section 6.2 there is no such
all-reduce. What stalls is the lock-step of the gathers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from matplotlib.axes import Axes

from alto_runs.profile import GangRow, read_profile, shipped_profile
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of, tell_values
from experiments.exhibits.exhibit import Exhibit, Table, Verdict

__all__ = ["beside_one_gpu", "exhibit", "run_beside_fsdp", "speedup", "without_fsdp"]

_PROFILES = ("h100x4.jsonl", "h100x4-whole-layers.jsonl", "h200x4.jsonl")  # a run each
_OF_WAYS = (
    "h100x2.jsonl",
    "h100x2-recorded.jsonl",
    "h200x2.jsonl",
    "h200x4-copied.jsonl",
    "h100x4-copied.jsonl",
)
_WHOLE_LAYERS = re.compile(r"--whole-layers (\d+)")
_OURS, _PEER, _ALONE, _COPIED = "adapter-parallel", "fsdp2-peft", "one-gpu", "copied"
_LABELS = {
    _OURS: "adapter parallelism, times FSDP2 (paper at batch 2: 4.7)",
    "copies": "a copy on each GPU",
    _PEER: "FSDP2 with PEFT",
    "ddp-peft": "DDP with PEFT",
}
_UNPAIRED = "adapter parallelism, a run without FSDP2"
_JOBS, _LENGTH, _BATCHES = 8, 256, (1, 2, 4, 8)
_PAPER_PEAK, _PAPER_PEAK_BATCH = 4.7, 2
_LAUNCHED = "-launched"  # the same method, nothing recorded
_SCALED_JOBS, _FULL_LENGTH = 32, 1024  # the GPUs are full


def exhibit() -> Exhibit:
    runs = [_gangs(profile) for profile in _PROFILES]
    of_ways = [_gangs(profile) for profile in _OF_WAYS]
    rows = list(chain.from_iterable(runs))
    models = tuple(dict.fromkeys(row.model.name for row in rows))
    shown = {model: run_beside_fsdp(runs, model) for model in models}
    gains = {
        (model, batch): gain
        for model, run in shown.items()
        for batch, gain in _gains(run, model).items()
    }
    figure, panels = panels_of(3.2, len(models))
    for axes, model in zip(panels, models, strict=True):
        run = shown[model]
        for place, method in enumerate(_LABELS):
            batches, speeds = _points(_series(run, model, method))
            axes.plot(batches, speeds, "o-", color=PALETTE[place], label=_LABELS[method])
        others = _points(without_fsdp(runs, model))
        axes.plot(*others, "o--", color=MUTED, lw=1, ms=4, zorder=1)
        _tell_gains(axes, _series(run, model, _OURS), _gains(run, model))
        axes.set_title(_title(run, model), fontsize=9, color=INK)
        axes.set_xscale("log", base=2)
        axes.set_xticks(_BATCHES, map(str, _BATCHES))
        axes.set_xlim(0.8, 10)
        axes.set_yscale("log")
        tell_values(axes.yaxis)
        axes.grid(axis="y", color=GRID)
        axes.set_xlabel("sequences in a job's batch")
    panels[0].set_ylabel("tokens/s on 4 GPUs")
    panels[-1].plot([], [], "o--", color=MUTED, lw=1, ms=4, label=_UNPAIRED)
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside upper center", ncols=3,
                  frameon=False, fontsize=8)  # fmt: skip
    return Exhibit(
        verdict=_verdict(gains),
        gist=f"{min(_at_peak(gains)):.0f} to {max(_at_peak(gains)):.0f} times FSDP2 at batch 2 "
        "(paper 4.7), and more at batch 1, where the paper has its peak at 2.",
        found=(
            *_sentences(runs, models, gains),
            *_scaling([*runs, *of_ways]),
            *_recorded(chain.from_iterable(of_ways)),
        ),
        table=Table(
            (
                "model", "method", "layers whole", "GPUs", "jobs", "batch", "tokens", "tokens/s",
                "over FSDP2", "received, GB", "exposed, ms", "recorded", "commit",
            ),
            tuple(_line(row, run) for run in (*runs, *of_ways) for row in run),
        ),
        logs=tuple(f"`kernels/profiles/{name}`" for name in (*_PROFILES, *_OF_WAYS)),
        seeds="Medians of five steps, each run in one call on one machine, no error bars.",
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


def _gains(run: Iterable[GangRow], model: str) -> dict[int, float]:
    """Of each batch size that has both."""
    rows = tuple(run)
    found = {batch: speedup(rows, model, batch) for batch in _BATCHES}
    return {batch: gain for batch, gain in found.items() if gain is not None}


def run_beside_fsdp(runs: Sequence[Sequence[GangRow]], model: str) -> Sequence[GangRow]:
    """The latest of those with most points beside FSDP2."""
    return max(reversed(runs), key=lambda run: len(_gains(run, model)))


def without_fsdp(runs: Sequence[Sequence[GangRow]], model: str) -> list[GangRow]:
    """Of adapter parallelism, in a run with more points of it and none of FSDP2."""
    shown = _series(run_beside_fsdp(runs, model), model, _OURS)
    others = [_series(run, model, _OURS) for run in runs if not _series(run, model, _PEER)]
    longest = max(others, key=len, default=[])
    return longest if len(longest) > len(shown) else []


def _told_without(found: Sequence[GangRow]) -> str | None:
    peak = [row for row in found if row.batch_size == _PAPER_PEAK_BATCH]
    return next((
        f"a run without FSDP2 (commit {row.machine.commit}, dashed, {_whole_layers(row) or 'no'} "
        f"layers whole) had {row.tokens_per_second:,.0f} tokens/s at batch {row.batch_size}"
        for row in peak
    ), None)  # fmt: skip


def _points(found: Sequence[GangRow]) -> tuple[list[int], list[float]]:
    return [row.batch_size for row in found], [row.tokens_per_second for row in found]


def _verdict(gains: dict[tuple[str, int], float]) -> Verdict:
    """The paper's height, and its peak at the same batch size."""
    if min(_at_peak(gains)) < _PAPER_PEAK:
        return Verdict.NOT_REPRODUCED
    models = {model for model, _ in gains}
    peaks = {max(_BATCHES, key=lambda b: gains.get((model, b), 0.0)) for model in models}
    return Verdict.REPRODUCED if peaks == {_PAPER_PEAK_BATCH} else Verdict.PARTLY


def _tell_gains(axes: Axes, found: Sequence[GangRow], gains: Mapping[int, float]) -> None:
    """Below the points."""
    for batch, speed in zip(*_points(found), strict=True):
        if batch in gains:
            axes.annotate(f"{gains[batch]:.1f}x", (batch, speed), (3, -7), fontsize=7, color=INK,
                          textcoords="offset points", ha="center", va="top")  # fmt: skip


def _at_peak(gains: dict[tuple[str, int], float]) -> list[float]:
    """Of each model, at the batch size of the paper's peak."""
    return [gain for (_, batch), gain in gains.items() if batch == _PAPER_PEAK_BATCH]


def _sentences(
    runs: Sequence[Sequence[GangRow]], models: Sequence[str], gains: dict[tuple[str, int], float]
) -> Iterable[str]:
    for model in models:
        told = ", ".join(
            f"{gains[model, b]:.1f} at batch {b}" for b in _BATCHES if (model, b) in gains
        )
        more = beside_one_gpu(runs, model), _told_without(without_fsdp(runs, model))
        yield "; ".join((f"{model}: times FSDP2 {told}", *filter(None, more))) + "."


def beside_one_gpu(runs: Sequence[Sequence[GangRow]], model: str) -> str | None:
    """How much of it one GPU has already, by all jobs in one pass, in the latest run with both."""
    return next(filter(None, (_beside_one(run, model) for run in reversed(runs))), None)


def _beside_one(rows: Iterable[GangRow], model: str) -> str | None:
    measured = {
        row.method: row
        for row in rows
        if (row.model.name, row.jobs, row.batch_size, row.length)
        == (model, _JOBS, _PAPER_PEAK_BATCH, _LENGTH)
    }
    if not {_ALONE, _OURS, _PEER} <= measured.keys():
        return None
    one, four, peer = (measured[method].tokens_per_second for method in (_ALONE, _OURS, _PEER))
    few = ", too few tokens for each" if four < one else ""
    return (
        f"at batch {_PAPER_PEAK_BATCH} on {_gpus(measured[_OURS])} (commit "
        f"{measured[_OURS].machine.commit}) one GPU with all jobs in one pass is "
        f"{one / peer:.1f} times FSDP2 on four, and four are {four / one:.2f} times the one{few}"
    )


def _scaling(runs: Iterable[Sequence[GangRow]]) -> Iterable[str]:
    """Of full GPUs, over as many times the one that trains all jobs in the same run."""
    shares: dict[tuple[str, str], dict[str, list[float]]] = {}
    for run in runs:
        full = [row for row in run if row.jobs == _SCALED_JOBS and row.length == _FULL_LENGTH]
        alone = {(r.model.name, r.batch_size): r for r in full if r.method == _ALONE}
        for row in full:
            one = alone.get((row.model.name, row.batch_size))
            if one is not None and row.method in (_OURS, _COPIED, "gathered", "copies"):
                share = row.tokens_per_second / (row.gpus * one.tokens_per_second)
                told = re.split("[;,]", row.machine.source)[0].partition(".py")[2]
                layers = _WHOLE_LAYERS.search(told)
                how = f"{row.method}, {layers[1]} layers whole" if layers else row.method
                by_way = shares.setdefault((row.model.name, _gpus(row)), {})
                by_way.setdefault(how, []).append(share)
    for (model, gpus), by_way in shares.items():
        told = "; ".join(
            f"{how} {' and '.join(f'{share:.2f}' for share in found)}"
            for how, found in by_way.items()
        )
        yield (
            f"{model} on {gpus}, {_SCALED_JOBS} jobs of {_FULL_LENGTH:,} tokens, of {gpus[0]} "
            f"times the tokens/s of one GPU, by run: {told}."
        )


def _title(run: Iterable[GangRow], model: str) -> str:
    row = next(row for row in run if (row.model.name, row.method) == (model, _OURS))
    layers = _whole_layers(row)
    return f"{model}, {_gpus(row)}" + (f",\n{layers} layers whole" if layers else "")


def _series(rows: Iterable[GangRow], model: str, method: str) -> list[GangRow]:
    """By batch size, at the jobs and the length of the figure."""
    found = (
        row
        for row in rows
        if (row.model.name, row.method, row.jobs, row.length) == (model, method, _JOBS, _LENGTH)
    )
    return sorted(found, key=lambda row: row.batch_size)


def _line(row: GangRow, rows: Sequence[GangRow]) -> tuple[str | int | float | None, ...]:
    gain = speedup(rows, row.model.name, row.batch_size) if row.method == _OURS else None
    is_of_figure = (row.jobs, row.length) == (_JOBS, _LENGTH)
    received, exposed = row.received_bytes, row.exposed_seconds
    return (
        row.model.name, row.method, _whole_layers(row), _gpus(row), row.jobs, row.batch_size,
        row.length, round(row.tokens_per_second), gain if is_of_figure else None,
        None if received is None else received / 1e9, None if exposed is None else 1e3 * exposed,
        "yes" if row.is_replayed else "", row.machine.commit,
    )  # fmt: skip


def _gpus(row: GangRow) -> str:
    return f"{row.gpus} {row.machine.gpu.split()[1]}"


def _recorded(rows: Iterable[GangRow]) -> Iterable[str]:
    """What recording saves of a step in shards, and how much of that copies need."""
    steps: dict[tuple[str, str], dict[str, dict[str, GangRow]]] = {}
    for row in rows:
        if row.is_replayed or row.method.endswith(_LAUNCHED):
            many = "jobs" if row.jobs > 1 else "job"
            point = f"{row.jobs} {many} of {row.batch_size} x {row.length}"
            by_point = steps.setdefault((row.model.name, _gpus(row)), {})
            by_point.setdefault(point, {})[row.method] = row
    for (model, gpus), by_point in steps.items():
        told = [
            f"{point} tokens {', '.join(_told_recorded(by_method))}"
            for point, by_method in by_point.items()
            if any(row.is_replayed for row in by_method.values())
        ]
        yield f"{model} on {gpus}, milliseconds of recorded passes: {'; '.join(told)}."


def _told_recorded(by_method: Mapping[str, GangRow]) -> Iterable[str]:
    for method, row in by_method.items():
        if row.is_replayed:
            launched = by_method.get(method + _LAUNCHED)
            beside = f" (launched {1e3 * launched.seconds:.0f})" if launched else ""
            yield f"{method} {1e3 * row.seconds:.0f}{beside}"


def _whole_layers(row: GangRow) -> int | None:
    """On every GPU; None for what splits no layers, or splits them in its own way."""
    if row.method != _OURS:
        return None
    told = _WHOLE_LAYERS.search(row.machine.source)
    return int(told[1]) if told else 0
