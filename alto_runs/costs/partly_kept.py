"""Step times of one GPU whose passes keep the activations that they have room for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from alto_policy.memory import MemoryModel, load_of
from alto_policy.types import Job, Task
from alto_runs.costs.step_profile import StepProfile
from alto_runs.costs.work import Crew, crew_of

__all__ = ["PartlyKept"]


@dataclass(frozen=True, slots=True)
class PartlyKept:
    """`PassTimes` of tasks that are admitted by `memory`. A pass of which some layers are computed
    again is launched; its time lies between those of both kinds."""

    keeping: StepProfile
    again: StepProfile
    memory: MemoryModel
    _passes: dict[Crew, float] = field(default_factory=dict, init=False)

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        jobs = tuple(jobs)
        crew = crew_of(jobs)
        if crew not in self._passes:
            layers = self.keeping.shape_of(task).layers
            share = self.memory.layers_again(load_of(jobs, task.max_length), layers) / layers
            self._passes[crew] = self._seconds(crew, task, share)
        return self._passes[crew]

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        return self.keeping.evaluation_seconds(jobs, task)

    def gang(self, task: Task) -> None:
        """Each GPU has the whole backbone, and trains for itself."""

    def _seconds(self, crew: Crew, task: Task, share: float) -> float:
        work = self.keeping.work_of_crew(crew, task)
        if share == 0:
            return self.keeping.seconds(work).value
        kept = self.keeping.seconds(replace(work, is_recorded=False)).value
        again = self.again.seconds(self.again.work_of_crew(crew, task)).value
        return (1 - share) * kept + share * again
