"""What each stretch of a recorded run's passes computed: its jobs simulated once more over its own
data, which takes them through the same passes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from alto_policy.runlog import Entry, RunLog
from alto_policy.types import TaskId
from alto_runs.files.data_lengths import SampleLengths
from alto_runs.files.executor_work import TrainingWork, Work
from alto_sim.calibration.fitted import Fitted
from alto_sim.simulate import play
from alto_sim.times.overheads import NO_OVERHEADS
from alto_sim.times.step_time import Computed, RowTimes, StepTime
from alto_sim.workloads.from_logs import recorded

__all__ = ["computed_of"]

# How long anything takes changes nothing of it.
_ANY_TIMES = Fitted(
    StepTime(
        per_pass=1.0,
        per_token=0.0,
        per_evaluation=1.0,
        rows=RowTimes(per_row=0.0, per_row_beyond=0.0, filling=1),
    ),
    NO_OVERHEADS,
)


def computed_of(
    log: RunLog, work: Sequence[Work], lengths: Mapping[TaskId, SampleLengths]
) -> tuple[Computed, ...]:
    """Of each row of its training; nothing where the simulated run makes other passes than those
    that are told: of several GPUs, of data of unknown lengths, and of passes too large to be
    recorded."""
    header, rows = log.header, [row for row in work if isinstance(row, TrainingWork)]
    if header is None or len(header.gpus) > 1 or not all(row.task in lengths for row in rows):
        return ()
    found: dict[int, Computed] = {}
    entries: list[Entry] = []
    again = recorded(log, times=_ANY_TIMES)
    workload = replace(again, lengths=lengths, computed=found)
    play(workload, header.policy, header.gpus, entries.append)
    made = [found[stretch] for stretch in sorted(found)]
    if [row.passes for row in rows] != [computed.passes for computed in made]:
        return ()
    return tuple(made)
