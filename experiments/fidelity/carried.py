"""What runs tell of one on another kind of GPU, or over another backbone.

Passes and evaluations of a backbone are carried from one kind of GPU to another by how long the
same ones take on both, which searches tell that were recorded on both. What an executor does
between them is that of another backbone on the same machine: a recording launches each layer, and
adapters are as many bytes as a unit of rank has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from alto_policy.events import ExecutorUp
from alto_runs.costs.shapes import shape_of
from alto_runs.files.executor_work import EvaluationWork, TrainingWork, Work
from alto_sim.times.overheads import Overheads
from experiments.fidelity.real_runs import Recording

__all__ = ["Size", "carried", "size_of", "sized"]

Key = tuple[object, ...]


def carried(run: Recording, machine: str, runs: Sequence[Recording]) -> Recording:
    """With the seconds that its passes and evaluations would take on that kind of GPU."""
    of_passes = _ratio(_pass_key, machine, run.machine, runs)
    of_evaluations = _ratio(_evaluation_key, machine, run.machine, runs)

    def scaled(row: Work) -> Work:
        if isinstance(row, TrainingWork):
            return replace(row, seconds=of_passes * row.seconds)
        if isinstance(row, EvaluationWork):
            return replace(row, seconds=of_evaluations * row.seconds)
        return row

    return replace(run, work=tuple(map(scaled, run.work)))


def _ratio(
    key: Callable[[Work], Key | None], there: str, here: str, runs: Iterable[Recording]
) -> float:
    """The median of what is the same on both; 1 where nothing is."""
    known = [run for run in runs if run.tells_rows]
    times = {id(run): _medians(key, run.work) for run in known}
    found = [
        seconds / times[id(other)][same]
        for run in known
        if run.machine == there
        for other in known
        if other.machine == here and other.backbones == run.backbones
        for same, seconds in times[id(run)].items()
        if same in times[id(other)]
    ]
    return median(found or [1.0])


def _medians(key: Callable[[Work], Key | None], work: Iterable[Work]) -> Mapping[Key, float]:
    each: dict[Key, list[float]] = {}
    for row in work:
        if (same := key(row)) is not None:
            passes = row.passes if isinstance(row, TrainingWork) else 1
            each.setdefault(same, []).append(row.seconds / passes)
    return {same: median(seconds) for same, seconds in each.items()}


def _pass_key(row: Work) -> Key | None:
    """Replays of the same jobs that compute as many rows."""
    if isinstance(row, TrainingWork) and row.replayed == row.passes:
        return row.task, row.jobs, row.ranks, row.replayed_rows // row.passes
    return None


def _evaluation_key(row: Work) -> Key | None:
    if isinstance(row, EvaluationWork) and not row.first_reports:
        return row.task, row.jobs, row.tokens
    return None


@dataclass(frozen=True, slots=True)
class Size:
    """Of a backbone and its adapters, for what executors do between passes."""

    layers: int
    rank_bytes: int  # of a unit of rank


def size_of(run: Recording) -> Size:
    (backbone,) = run.backbones
    layers, _, whole = backbone.partition("-layers-of-")
    memory = next(e.event.memory for e in run.log.entries if isinstance(e.event, ExecutorUp))
    return Size(int(layers) if whole else shape_of(backbone).layers, memory.per_rank)


def sized(overheads: Overheads, of: Size, to: Size) -> Overheads:
    """Those of a backbone of such a size, for one of another size."""
    layers, adapters = to.layers / of.layers, to.rank_bytes / of.rank_bytes
    leaving = overheads.leaving
    return replace(
        overheads,
        recording=layers * overheads.recording,
        compiling=layers * overheads.compiling,
        launched_pass=layers * overheads.launched_pass,
        launch=adapters * overheads.launch,
        launch_beside=adapters * overheads.launch_beside,
        leaving=replace(
            leaving,
            alone=adapters * leaving.alone,
            together=adapters * leaving.together,
        ),
    )
