"""By the times of which recorded runs another one is told."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from alto_sim.calibration.fitted import Fitted
from alto_sim.calibration.from_runs import learnt
from alto_sim.times.overheads import Overheads
from alto_sim.times.step_time import StepTime
from experiments.fidelity.carried import Size, carried, size_of, sized
from experiments.fidelity.real_runs import Recording

__all__ = ["Others", "Source", "others_of"]

# Runs that times are learnt from; and those that tell what of a pass takes how long, which are many
# times that nobody tells apart in two searches.
_FEWEST, _FEWEST_OF_PASSES = 2, 4


class Source(StrEnum):
    """Whose times a run is told by."""

    CODE = "runs of its code"
    BACKBONE = "runs of its backbone, any code"
    CARRIED = "runs of its backbone, on another kind of GPU too"
    PROFILE = "the shipped profile"


@dataclass(frozen=True, slots=True)
class Others:
    """Runs that tell of another one."""

    runs: tuple[Recording, ...]
    source: Source = Source.CODE
    of_passes: tuple[Recording, ...] = ()  # that tell of passes, where the runs are too few
    # Of other code, and on other kinds of GPU, for what no run has done.
    elsewhere: tuple[tuple[Recording, ...], ...] = ()
    between: tuple[Recording, ...] = ()  # over another backbone, that tell what is between passes
    size: Size | None = None  # of the backbone, to which these have to be brought

    def overheads(self) -> Overheads | None:
        """What is between passes, where runs over another backbone tell it."""
        if not self.between or self.size is None:
            return None
        return sized(_learnt(self.between).overheads, size_of(self.between[0]), self.size)

    def fitted(self) -> Fitted:
        """Not of a source that is no run."""
        found = _learnt(self.runs)
        if (overheads := self.overheads()) is not None:
            return replace(found, overheads=overheads)
        if self.of_passes:
            found = replace(found, step_time=_with_passes(found, _learnt(self.of_passes)))
        overheads = found.overheads
        if there := self._first_who(lambda run: bool(run.pairs)):
            told = _learnt(there).overheads.evaluation_of_pairs
            overheads = replace(overheads, evaluation_of_pairs=told)
        if there := self._first_who(lambda run: run.launches_all):
            overheads = replace(overheads, launched_pass=_learnt(there).overheads.launched_pass)
        return replace(found, overheads=overheads)

    def _first_who(self, have_done: Callable[[Recording], bool]) -> tuple[Recording, ...]:
        """The nearest of them, one of whom has done what none of the runs has; none otherwise."""
        if any(map(have_done, self.runs)):
            return ()
        return next((there for there in self.elsewhere if any(map(have_done, there))), ())


@lru_cache(maxsize=64)
def _learnt(runs: tuple[Recording, ...]) -> Fitted:
    return learnt(
        *((run.log, run.work) for run in runs),
        pairs={task for run in runs for task in run.pairs},
        computed=[run.computed for run in runs] if len(runs) >= _FEWEST_OF_PASSES else (),
        histories=[run.history for run in runs],
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
    of what told nothing of its work, one. Where these are too few, those of its backbone on another
    kind of GPU are carried over, and where there are none, the profile tells passes and
    evaluations. What is between them is told by runs over another backbone then."""
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
        of_other_code = tuple(times for times in told if times.code != run.code)
        return Others(tuple(same), Source.CODE, of_passes, (of_other_code, elsewhere))
    if len(told) >= _FEWEST or (told and not elsewhere):
        return Others(told, Source.BACKBONE, elsewhere=(elsewhere,))
    between, size = _over_another_backbone(run, rest), size_of(run)
    if elsewhere:
        there = tuple(carried(times, run.machine, rest) for times in elsewhere)
        return Others((*told, *there), Source.CARRIED, between=between, size=size)
    return Others((), Source.PROFILE, between=between, size=size)


def _over_another_backbone(run: Recording, rest: Sequence[Recording]) -> tuple[Recording, ...]:
    """Of the one that most runs on its machine are over; of its code where there are several."""
    there = [times for times in rest if times.machine == run.machine and times.tells_rows]
    counts = Counter(frozenset(times.backbones) for times in there)
    if not counts:
        return ()
    most = max(counts, key=lambda names: counts[names])
    told = [times for times in there if times.backbones == most]
    of_code = [times for times in told if times.code == run.code]
    return tuple(of_code if len(of_code) >= _FEWEST else told)
