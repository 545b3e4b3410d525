"""By the times of which recorded runs another one is told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from alto_sim.calibrate import Fitted
from alto_sim.step_time import StepTime
from alto_sim.workload import learnt
from experiments.real_runs import Recording

__all__ = ["Others", "Source", "others_of"]

# Runs that times are learnt from; and those that tell what of a pass takes how long, which are many
# times that nobody tells apart in two searches.
_FEWEST, _FEWEST_OF_PASSES = 2, 4


class Source(StrEnum):
    """Whose times a run is told by."""

    CODE = "runs of its code"
    BACKBONE = "runs of its backbone, any code"
    PROFILE = "the shipped profile"


@dataclass(frozen=True, slots=True)
class Others:
    """Runs that tell of another one."""

    runs: tuple[Recording, ...]
    source: Source = Source.CODE
    of_passes: tuple[Recording, ...] = ()  # that tell of passes, where the runs are too few
    elsewhere: tuple[Recording, ...] = ()  # on another kind of GPU, for what no run has done

    def fitted(self) -> Fitted:
        found = _learnt(self.runs)
        if self.of_passes:
            found = replace(found, step_time=_with_passes(found, _learnt(self.of_passes)))
        has_pairs = any(run.pairs for run in self.runs)
        launches_all = any(run.launches_all for run in self.runs)
        if not self.elsewhere or (has_pairs and launches_all):
            return found
        overheads, there = found.overheads, _learnt(self.elsewhere).overheads
        if not has_pairs:
            overheads = replace(overheads, evaluation_of_pairs=there.evaluation_of_pairs)
        if not launches_all:
            overheads = replace(overheads, launched_pass=there.launched_pass)
        return replace(found, overheads=overheads)


def _learnt(runs: Sequence[Recording]) -> Fitted:
    return learnt(
        *((run.log, run.work) for run in runs),
        pairs={task for run in runs for task in run.pairs},
        computed=[run.computed for run in runs] if len(runs) >= _FEWEST_OF_PASSES else (),
    )


def _with_passes(found: Fitted, told: Fitted) -> StepTime:
    times = told.step_time
    return replace(
        found.step_time,
        per_pass=times.per_pass,
        per_token=times.per_token,
        per_rank=times.per_rank,
        per_length=times.per_length,
        rows=times.rows,
    )


def others_of(run: Recording, runs: Sequence[Recording]) -> Others:
    """Of those that tell what replays computed, all of its code and backbone, or of its backbone;
    of what told nothing of its work, one. The profile knows passes and evaluations alone: what is
    between them is learnt of all of the code."""
    rest = [times for times in runs if times is not run]
    alike = [times for times in rest if run.is_like(times)]
    same = [times for times in alike if times.code == run.code]
    if not run.tells_work and same:
        return Others((same[0],))
    same = [times for times in same if times.tells_rows]
    told = tuple(times for times in alike if times.tells_rows)
    elsewhere = tuple(
        times
        for times in rest
        if times.tells_rows and times.machine != run.machine and times.backbones == run.backbones
    )
    if len(same) >= _FEWEST:
        of_passes = told if len(same) < _FEWEST_OF_PASSES else ()
        return Others(tuple(same), Source.CODE, of_passes, elsewhere)
    if told:
        return Others(told, Source.BACKBONE, elsewhere=elsewhere)
    of_code = (times for times in rest if times.code == run.code and times.tells_rows)
    return Others(tuple(of_code), Source.PROFILE)
