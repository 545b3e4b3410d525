"""One GPU of an executor, or all that go in step: jobs train in fused passes, and come and go
between passes."""

import math
from dataclasses import dataclass

from alto_policy.events import Departure
from alto_policy.memory import MemoryModel
from alto_policy.types import Task
from alto_runs.costs.durations import PassTimes
from alto_runs.files.data_lengths import SampleLengths
from alto_sim.cluster.bank_rows import BankRows
from alto_sim.cluster.clock import Clock
from alto_sim.cluster.disk import disk_of
from alto_sim.cluster.trainee import Outlet, Place, Trainee
from alto_sim.curves.losses import LossCurves, Losses
from alto_sim.times.overheads import NO_OVERHEADS, Leaving, Overheads
from alto_sim.times.step_time import Computed

__all__ = ["Known", "Lane", "Training"]

_ROUNDING = 1e-9  # of a pass: float time may miss the end of one by less

# Looked up once: a member asked of its enum takes 0.09 us in Python 3.11, a global 0.005.
_AWAY, _COMING, _TRAINING = Place.AWAY, Place.COMING, Place.TRAINING
_REPORTING, _HELD = Place.REPORTING, Place.HELD
_PAUSED = Departure.PAUSED


@dataclass(frozen=True, slots=True)
class Known:
    """Of a task whose passes are known one by one: which of them are recorded can be told."""

    lengths: SampleLengths
    memory: MemoryModel
    told: dict[int, Computed] | None = None  # to be filled, by stretches of passes of one GPU

    @property
    def most_recorded(self) -> int | None:
        """Tokens of a pass that is recorded; None where the log does not tell."""
        passes = self.memory.passes
        return passes.recorded_tokens or None if passes is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What the jobs of a lane have in common, and how long their passes take."""

    task: Task
    curves: LossCurves
    step_time: PassTimes
    slowdown: float
    overheads: Overheads = NO_OVERHEADS
    known: Known | None = None


class Lane:
    """Passes run in one go until the next report is due, unless somebody comes or goes."""

    def __init__(self, training: Training, clock: Clock, outlet: Outlet) -> None:
        self._task = task = training.task
        self._overheads = overheads = training.overheads
        self._slowdown = slowdown = training.slowdown
        self._curves = training.curves
        self._step_time = training.step_time
        self._clock = clock
        self._outlet = outlet
        known = training.known
        lengths = None if known is None else known.lengths
        self._has_pairs = lengths is not None and lengths.sequences > 1
        self._rounds: set[int] = set()  # how many jobs were ever evaluated together
        of_known = () if known is None else (known.lengths, known.most_recorded, known.told)
        self._first_times = overheads.first_times(training.step_time, task, slowdown, *of_known)
        self._later_times = self._first_times  # once the passes under way are over
        self._joining: list[Trainee] = []  # that were launched at this moment
        self._bank = None if known is None else BankRows(known.memory, task.max_length)
        self._has_launched = False
        self._launched = 0  # new jobs that were given a place since passes began last
        self._keeping = 0.0  # seconds to tell of those that report, and to let jobs go
        self._disk = disk_of(overheads.leaving)
        self._members: list[Trainee] = []
        self._coming: list[Trainee] = []
        self._begun = 0.0  # when the passes under way began; may lie ahead, after an evaluation
        self._first = 0.0  # seconds that they take more, being of a new size
        self._seconds = 0.0  # of a pass
        self._planned = 0  # passes until the pending event
        self._generation = 0  # of the pending event; earlier ones are void
        self._has_leavers = False  # a member has heard that it shall go
        self._is_joined = False  # somebody has come or left at this moment, and others still may

    def join(self, trainee: Trainee) -> None:
        """Let the job train from the next pass on; one that paused on its last report is at its
        end, as on the real backend."""
        if trainee.step == trainee.spec.steps:
            self._leave(trainee, Departure.FINISHED)
            return
        self._launched += not trainee.passes  # one that comes back has its place
        self._joining.append(trainee)
        self._come(trainee)

    def hear(self, trainee: Trainee) -> None:
        """The order to leave has reached the job: it goes at once, or when its pass is over. One
        that has paused is gone."""
        trainee.has_heard = True
        match trainee.place:
            case Place.COMING | Place.HELD:
                self._coming = [coming for coming in self._coming if coming is not trainee]
                self._leave(trainee)
            case Place.TRAINING:
                self._has_leavers = True
                self._change()
            case Place.AWAY:
                self._keeping += self._overheads.departure
                self._disk.give_up(self._clock.now, trainee.spec.id)
                if self._bank is not None:
                    self._bank.forget(trainee.spec.id)
            case Place.REPORTING:
                pass

    def discard(self, trainee: Trainee) -> None:
        """The job is gone without a farewell; what it has trained since its checkpoint is lost."""
        was_training = trainee.place is _TRAINING
        self._coming = [coming for coming in self._coming if coming is not trainee]
        self._members = [member for member in self._members if member is not trainee]
        trainee.place, trainee.passes = _AWAY, int(trainee.kept)
        if was_training:
            self._change()

    def release(self, trainee: Trainee) -> None:
        """The decisions on the job's report are back."""
        trainee.kept = trainee.passes
        if trainee.has_heard:
            self._leave(trainee)
        elif trainee.step == trainee.spec.steps and not trainee.is_lost:
            self._leave(trainee, Departure.FINISHED)
        elif trainee.ordered is not None:
            trainee.place = _HELD
        elif trainee.is_lost:
            self._leave(trainee, Departure.FAILED)
        else:
            self._come(trainee)

    def _come(self, trainee: Trainee) -> None:
        self._plan_report(trainee)
        trainee.place = _COMING
        self._coming.append(trainee)
        self._change_soon()

    def _change_soon(self) -> None:
        """For all together: jobs that have reported together come back, or leave, one by one."""
        if not self._is_joined:
            self._is_joined = True
            self._clock.soon(self._change)

    def _change(self) -> None:
        """Have the passes under way end with the present one."""
        self._is_joined = False
        trained = self._clock.now - self._begun - self._first
        passes = trained / self._seconds if self._members else 0.0
        whole = math.floor(passes + _ROUNDING)
        if not self._members or passes <= 0:
            self._form(max(self._clock.now, self._begun))
        elif passes - whole <= _ROUNDING:
            self._planned = min(whole, self._planned)
            self._end_passes()
        elif whole + 1 < self._planned:
            self._schedule(whole + 1)

    def _form(self, begin: float) -> None:
        """Begin the next passes with all that are here."""
        if self._has_leavers:
            going = [member for member in self._members if member.has_heard]
            self._members = [member for member in self._members if not member.has_heard]
            self._has_leavers = False
            for member in going:
                self._leave(member)
        for trainee in self._coming:
            trainee.place = _TRAINING
        self._members += self._coming
        self._coming = []
        joining, self._joining = self._joining, []
        if joining and self._bank is not None and self._first_times is not None:
            new = [trainee.spec for trainee in joining]
            names = {job.id for job in new}
            seated = [member.spec for member in self._members if member.spec.id not in names]
            if self._bank.launch(new, seated):
                self._first_times = self._first_times.cleared()
        waiting, beside = self._disk.settle()
        launch = self._overheads.launch_beside if self._has_launched else self._overheads.launch
        launching = launch * self._slowdown * self._launched
        self._has_launched |= self._launched > 0
        self._begun = begin + (launching + waiting + self._keeping)
        self._launched, self._keeping = 0, 0.0
        if not self._members:
            self._generation += 1
            return
        specs = [member.spec for member in self._members]
        self._seconds = self._step_time.pass_seconds(specs, self._task) * self._slowdown
        self._schedule(min([member.due - member.passes for member in self._members]), beside)

    def _schedule(self, passes: int, beside: float = 0.0) -> None:
        """So many passes, the first of them for so many seconds `beside` a disk at work."""
        self._planned = passes
        is_recorded = False
        if self._first_times is not None:
            specs = [member.spec for member in self._members]
            done = [member.passes for member in self._members]
            self._first, self._later_times = self._first_times.after(
                specs, self._seconds, passes, done
            )
            is_recorded = self._later_times.made > self._first_times.made
        if beside:
            each = self._seconds + self._first / passes
            leaving = self._overheads.leaving
            assert isinstance(leaving, Leaving)
            self._begun += beside * (1 if is_recorded else leaving.slows(each))
        self._generation += 1
        generation = self._generation

        def end() -> None:
            if generation == self._generation:
                self._end_passes()

        self._clock.at(self._begun + self._first + passes * self._seconds, end)

    def _end_passes(self) -> None:
        self._first_times = self._later_times
        due: list[Trainee] = []
        going_on: list[Trainee] = []
        for member in self._members:
            member.passes += self._planned
            (due if member.passes == member.due else going_on).append(member)
        self._members = going_on
        evaluated = [member.spec for member in due]
        seconds = self._step_time.evaluation_seconds(evaluated, self._task)
        overheads = self._overheads
        if self._has_pairs:
            seconds *= 1 + overheads.evaluation_of_pairs
        if overheads.first_report:
            seconds += overheads.first_report * sum(not one.has_reported for one in due)
        if due and len(due) not in self._rounds:
            seconds += overheads.first_round if self._rounds else overheads.first_evaluation
            self._rounds.add(len(due))
        evaluation = self._slowdown * seconds
        told: list[tuple[Trainee, Losses]] = []
        for member in due:
            member.place, member.has_reported = _REPORTING, True
            losses = self._curves.losses(member.spec, member.step)
            member.is_lost = losses.is_lost
            member.since_best += 1
            if losses.val < member.best_val:
                member.best_val, member.since_best = losses.val, 0
            told.append((member, losses))
            self._disk.report(self._clock.now + evaluation, member.spec, member.since_best)
        if told:
            self._keeping += overheads.reports + overheads.report * len(told)
            self._outlet.report(evaluation, told)
        self._form(self._clock.now + evaluation)

    def _leave(self, trainee: Trainee, how: Departure | None = None) -> None:
        departure = how or trainee.ordered
        assert departure is not None
        trainee.place, trainee.kept = _AWAY, trainee.passes
        if departure.comes_back:
            self._keeping += self._overheads.departure
        if self._disk.leave(self._clock.now, trainee.spec, departure, trainee.since_best):
            self._change_soon()
        if self._bank is not None and departure is _PAUSED:
            self._bank.park(trainee.spec)
        self._outlet.left(trainee, departure)

    def _plan_report(self, trainee: Trainee) -> None:
        step = self._curves.report_step(trainee.spec, trainee.step)
        trainee.due = step * trainee.spec.hyperparameters.accumulation
