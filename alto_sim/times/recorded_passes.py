"""Training passes that are recorded once and replayed: how many are, and what they compute."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from statistics import NormalDist

from alto_policy.memory import SPARE, recorded_rows
from alto_policy.types import Job, Task
from alto_runs.costs.recording import RECORDING_ROWS
from alto_sim.times.step_time import RowTimes, tokens_of

__all__ = ["Recordings"]

# Of passes, in an order in which few in a row are small as well as large: the golden section's.
_DEVIATIONS = [NormalDist().inv_cdf((0.5 + i * (sqrt(5) - 1) / 2) % 1) for i in range(64)]
# Longest sample less the mean, in deviations: three runs made 27 recordings, and this tells 26.
_LONGEST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """What the passes of one GPU have recorded, by the rule of executors that record.

    They copy a batch into the smallest recording with room for it, until the rows that this has
    computed for nothing cost as much as another recording.
    """

    task: Task
    compiling: float  # seconds, with the first of them
    recording: float  # seconds of each
    rows: RowTimes
    slowdown: float = 1.0
    passes: int = 0  # so far
    made: int = 0  # recordings, so far
    wasted: Mapping[int, int] = field(default_factory=dict)  # rows, by those of a recording

    def after(
        self, jobs: Sequence[Job], seconds: float, count: int, done: Sequence[int] = ()
    ) -> tuple[float, "Recordings"]:
        """Seconds that so many passes of the jobs take more than their tokens do, and what is
        recorded then."""
        mean = tokens_of(jobs, self.task)
        spread = _spread(jobs, self.task)
        wasted = dict(self.wasted)
        computing = 0.0
        for index in range(self.passes, self.passes + count):
            deviation = spread * _DEVIATIONS[index % len(_DEVIATIONS)]
            computing += self.rows.seconds(_replay(wasted, max(1, round(mean * (1 + deviation)))))
        more = self.recording * (len(wasted) - len(self.wasted))
        if not self.wasted:
            more += self.compiling
        more += max(0.0, computing - count * self.rows.seconds(mean)) + self.rows.per_stretch
        later = replace(self, passes=self.passes + count, made=len(wasted), wasted=wasted)
        return self.slowdown * more, later

    def cleared(self) -> "Recordings":
        """Once what was recorded is gone. Kernels are compiled."""
        return replace(self, wasted={}, made=0, compiling=0.0)


def _replay(wasted: dict[int, int], tokens: int) -> int:
    """The rows of the recording that takes the batch; a new one where none does."""
    own, new = recorded_rows(tokens), recorded_rows(tokens, SPARE)
    rows = min((known for known in wasted if known >= own), default=new)
    wasted[rows] = wasted.get(rows, 0) + max(0, rows - new)
    if wasted[rows] > RECORDING_ROWS:
        wasted[rows] = 0
        wasted.setdefault(new, 0)
        return new
    return rows


def _spread(jobs: Sequence[Job], task: Task) -> float:
    """Deviation of a pass's tokens, relative to them: jobs of one seed and batch size train on the
    same samples."""
    alike = Counter((one.hyperparameters.seed, one.hyperparameters.batch_size) for one in jobs)
    samples = sum(size * count for (_, size), count in alike.items())
    variance = sum(size * count**2 for (_, size), count in alike.items())
    return (task.max_length / task.mean_length - 1) / _LONGEST * sqrt(variance) / samples
