"""Which recorded pass takes a batch, by the rule of executors that record (`PassShape` there)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from alto_policy.memory import SPARE, recorded_rows, recorded_targets
from alto_policy.types import Job, Task
from alto_runs.costs.recording import RECORDING_ROWS
from alto_runs.files.data_lengths import SampleLengths
from alto_sim.times.pass_needs import PassNeeds, needs_of
from alto_sim.times.step_time import Computed, RowTimes, tokens_of, walked_rows

__all__ = ["KnownRecordings", "Shape"]

_LEAST_LENGTH = 128
_RANK_STEP = 16
_MOST_RECORDINGS = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """A recorded pass: what it has room for."""

    rows: int
    targets: int
    sequences: int
    longest: int
    adapters: int
    most_of_adapter: int
    rank: int
    pairs: int
    frozen_pairs: int

    @classmethod
    def around(cls, batch: PassNeeds, spare: float = 0.0) -> "Shape":
        """With room for this batch and for others like it, `spare` of it more in any case."""
        rows = recorded_rows(batch.rows, spare)
        longest = max(_LEAST_LENGTH, _power_of_two(batch.longest))
        own = batch.sequences + -(-(rows - batch.rows) // longest)
        return cls(
            rows=rows,
            targets=recorded_targets(batch.targets, spare),
            sequences=max(own, _room_for(batch.sequences) + -(-rows // (2 * longest))),
            longest=longest,
            adapters=_room_for(batch.adapters),
            most_of_adapter=_power_of_two(batch.most_of_adapter),
            rank=-(-batch.rank // _RANK_STEP) * _RANK_STEP,
            pairs=_room_for(int((1 + spare) * batch.pairs)) if batch.pairs else 0,
            frozen_pairs=_room_for(int((1 + spare) * batch.frozen_pairs)) if batch.pairs else 0,
        )

    def takes(self, batch: PassNeeds, own: "Shape") -> bool:
        """Whether there is room for a batch that `own` is around."""
        return (
            self.rows >= own.rows
            and self.targets >= own.targets
            and self.longest >= own.longest
            and self.sequences >= batch.sequences - (batch.rows - self.rows) // self.longest
            and self.adapters >= own.adapters
            and self.most_of_adapter >= own.most_of_adapter
            and self.rank >= own.rank
            and self.pairs >= own.pairs
            and self.frozen_pairs >= own.frozen_pairs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRecordings:
    """As `Recordings`, of a data set whose lengths are known: which samples a pass trains on is
    known as well."""

    task: Task
    lengths: SampleLengths
    compiling: float  # seconds, with the first of them
    recording: float  # seconds of each
    rows: RowTimes
    per_token: float
    launched_pass: float = 0.0  # seconds, at least
    most_recorded: int | None = None  # tokens; passes of more are launched each time
    slowdown: float = 1.0
    made: int = 0  # recordings, so far
    stretches: int = field(default=0, compare=False)  # so far
    told: dict[int, Computed] | None = field(default=None, compare=False)  # of each stretch
    seen: Mapping[int, int] = field(default_factory=dict)
    wasted: Mapping[Shape, int] = field(default_factory=dict)  # rows; last used in the end

    def after(
        self, jobs: Sequence[Job], seconds: float, count: int, done: Sequence[int] = ()
    ) -> tuple[float, "KnownRecordings"]:
        """Seconds that so many passes take more than those of mean batches, of jobs that have done
        so many passes before."""
        batches, seen = needs_of(jobs, done, count, self.lengths, self.seen)
        wasted, made, more = dict(self.wasted), 0, self.rows.per_stretch
        mean, of_means = tokens_of(jobs, self.task), self.rows.of_means(jobs, self.task)
        shapes: list[Shape | PassNeeds] = []
        for batch in batches:
            if self.most_recorded is not None and batch.rows > self.most_recorded:
                shapes.append(batch)  # nothing is computed beside it
                own = self.rows.of(_computed([batch], [batch])) - of_means
                own += seconds / self.slowdown + self.per_token * (batch.rows - mean)
                more += max(0.0, self.launched_pass - own)
                continue
            shape, is_new = _replay(wasted, batch)
            made += is_new
            shapes.append(shape)
        computed = _computed(batches, shapes)
        tokens = sum(batch.rows for batch in batches)
        more += self.recording * made + (0.0 if self.wasted else self.compiling)
        more += self.rows.of(computed) - count * of_means
        more += self.per_token * (tokens - count * mean)
        if self.told is not None:
            self.told[self.stretches] = computed  # once more, where a stretch was planned longer
        later = replace(
            self,
            made=self.made + made,
            stretches=self.stretches + 1,
            seen=seen,
            wasted=wasted,
        )
        return self.slowdown * more, later

    def cleared(self) -> "KnownRecordings":
        """Once what was recorded is gone. Kernels are compiled."""
        return replace(self, wasted={}, compiling=0.0)


def _computed(batches: Sequence[PassNeeds], shapes: Sequence[Shape | PassNeeds]) -> Computed:
    return Computed(
        rows=Counter(shape.rows for shape in shapes),
        places=sum(shape.sequences * shape.longest for shape in shapes),
        longest=sum(shape.longest for shape in shapes),
        sequences=sum(batch.sequences for batch in batches),
        walked=sum(walked_rows(shape.rank, shape.most_of_adapter) for shape in shapes),
    )


def _replay(wasted: dict[Shape, int], batch: PassNeeds) -> tuple[Shape, bool]:
    """The recording that takes the batch, and whether it is made for it: where none has room, or
    the one that has has computed too many rows for nothing."""
    known, own = None, Shape.around(batch)
    for shape in wasted:
        if (known is None or shape.rows < known.rows) and shape.takes(batch, own):
            known = shape
    if known is not None:
        rows = wasted[known] + max(0, known.rows - recorded_rows(batch.rows, SPARE))
        if rows <= RECORDING_ROWS:
            del wasted[known]
            wasted[known] = rows
            return known, False
        wasted[known] = 0
    new = Shape.around(batch, SPARE)
    is_new = new not in wasted
    wasted[new] = wasted.pop(new, 0)
    if len(wasted) > _MOST_RECORDINGS:
        del wasted[next(iter(wasted))]
    return new, is_new


def _room_for(count: int, least: int = 8) -> int:
    step = max(least, (1 << max(0, count - 1).bit_length()) // 16)
    return max(1, -(-count // step)) * step


def _power_of_two(count: int) -> int:
    """The first that is not below `count`."""
    return 1 << max(0, count - 1).bit_length()
