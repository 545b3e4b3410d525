"""What a set of jobs will hold of one GPU's memory."""

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from alto_policy.codec import LEFT_OUT
from alto_policy.frozen import quick
from alto_policy.types import Job, Task

__all__ = [
    "SPARE",
    "KeptActivations",
    "Load",
    "Logits",
    "MeasuredPasses",
    "MemoryModel",
    "holding_widths",
    "joined",
    "load_of",
    "recorded_rows",
    "recorded_targets",
    "saving_pays",
]

_TILE_ROWS = 128  # of a batch, in which the adapters' kernels cut it
_LEAST_WIDTH = 16  # of a block of those kernels, in units of rank
SPARE = 1 / 16  # a training pass is recorded with room for so much more than its batch has
_LEAST_JOBS = 8  # that it has room for
_LEAST_ROWS = 512  # fewer take no less time: that of a thousand launches
_ROOM_SHARE = 16  # of the power of two above a batch, in which recorded passes round it up
_LEAST_TARGETS, _TARGETS_SHARE = 128, 8  # of its targets, which vary more and cost less
_GAIN = 1.05  # in tokens a second, from which on recomputation is worth it


@quick
@dataclass(frozen=True, slots=True)
class Load:
    """Jobs on one GPU as far as memory can tell them from others."""

    jobs: int = 0
    ranks: int = 0  # summed over the jobs
    tokens: int = 0  # of one pass, were all sequences of full length
    rank_tokens: int = 0  # rank times tokens, summed over the jobs
    widest: int = 0  # the highest rank

    def plus(self, job: Job, max_length: int) -> "Load":
        chosen = job.hyperparameters
        rank, tokens = chosen.rank, chosen.batch_size * max_length
        return Load(
            self.jobs + 1,
            self.ranks + rank,
            self.tokens + tokens,
            self.rank_tokens + rank * tokens,
            max(self.widest, rank),
        )


def load_of(jobs: Iterable[Job], max_length: int) -> Load:
    """In one loop, without a load for each job: packing and durations ask for many."""
    count = ranks = all_tokens = rank_tokens = widest = 0
    for job in jobs:
        chosen = job.hyperparameters
        rank, tokens = chosen.rank, chosen.batch_size * max_length
        count += 1
        ranks += rank
        all_tokens += tokens
        rank_tokens += rank * tokens
        if rank > widest:
            widest = rank
    return Load(count, ranks, all_tokens, rank_tokens, widest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """What is predicted for targets, of as many as go through the head at once."""

    per_target: int  # bytes
    most: int  # targets at once
    share: float  # of a pass's tokens, that are targets at most

    def bytes(self, tokens: int, *, is_recorded: bool) -> int:
        targets = math.ceil(self.share * tokens)
        if is_recorded:
            targets = recorded_targets(targets, SPARE)
        return self.per_target * min(targets, self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPasses:
    """What passes held beside the backbone and the adapters' own state, as it was measured."""

    # Rows and bytes, both ascending; none if none had room. Where nothing is known of logits, as in
    # older logs, they are among the bytes, and tokens stand in the place of rows.
    peaks: tuple[tuple[int, int], ...]
    per_row_rank: int  # what a row keeps for its adapter, for one unit of the widest rank
    per_rank_moving: int  # held twice, for one unit of rank, while the adapters' memory grows
    evaluation: int  # bytes of an evaluation's pass
    recorded_tokens: int = 0  # passes of up to so many are rounded up, and recorded
    recompute: bool = False  # activations are computed again in the backward pass
    logits: Logits | None = field(default=None, metadata=LEFT_OUT)

    def bytes(self, load: Load, per_row: int) -> int:
        """Most bytes held at any time; beyond the measured passes by `per_row`."""
        tokens, jobs = load.tokens, load.jobs
        is_recorded, rows = tokens <= self.recorded_tokens, self.rows(tokens)
        if is_recorded:
            tokens, jobs = _with_room(tokens, _TILE_ROWS), _with_room(jobs, _LEAST_JOBS)
        if self.logits is None:
            training = self._peak(tokens, per_row)
        else:
            training = self._peak(rows, per_row)
            training += self.logits.bytes(load.tokens, is_recorded=is_recorded)
        width = max(_LEAST_WIDTH, 1 << (load.widest - 1).bit_length())
        cut = _TILE_ROWS * (jobs + 1)  # each job cuts one more tile in two
        training += self.per_row_rank * width * (rows + cut)
        return max(training, self.evaluation, self.per_rank_moving * load.ranks)

    def rows(self, tokens: int) -> int:
        """That a pass over so many computes."""
        return recorded_rows(tokens, SPARE) if tokens <= self.recorded_tokens else tokens

    def _peak(self, rows: int, per_row: int) -> int:
        """Between two measured passes on the line through them; the smallest holds for less."""
        after = bisect_right(self.peaks, rows, key=lambda peak: peak[0])
        first, held = self.peaks[max(0, after - 1)]
        if after == 0 or first == rows:
            return held
        if after == len(self.peaks):
            return held + per_row * (rows - first)
        last, more = self.peaks[after]
        return held - (held - more) * (rows - first) // (last - first)


def recorded_rows(tokens: int, spare: float = 0.0) -> int:
    """Of a recorded pass with room for so many tokens and `spare` of them more: one of few sizes,
    at most an eighth above that."""
    return _with_room(max(1, int((1 + spare) * tokens)), _LEAST_ROWS)


def recorded_targets(targets: int, spare: float = 0.0) -> int:
    """As `recorded_rows`, of its targets, with twice the room to spare."""
    count = max(1, int((1 + 2 * spare) * targets))
    return _with_room(count, _LEAST_TARGETS, _TARGETS_SHARE)


def _with_room(count: int, least: int, share: int = _ROOM_SHARE) -> int:
    """As recorded passes round up what they have."""
    step = max(least, (1 << (count - 1).bit_length()) // share)
    return -(-count // step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptActivations:
    """What passes hold that keep them all, in place of a model's own terms, which are those of
    passes that compute them again."""

    per_token: int
    per_rank_token: int = 0
    passes: MeasuredPasses | None = None
    exchanged: int = 0  # bytes of other GPUs' tokens, which travel in no other passes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryModel:
    """Bytes on one GPU, measured by the executor when it comes up.

    The paper's form is k0 + k1 * tokens (appendix A.3); the rank terms are ours. Where passes were
    measured they stand in the place of the linear terms of tokens.
    """

    capacity: int  # bytes that may be used, the safety margin taken off
    fixed: int  # backbone and workspace
    per_rank: int  # adapter, gradient and optimizer state for one unit of rank
    per_token: int  # activations of one token
    per_rank_token: int = 0  # activations of one token, for one unit of its job's rank
    max_jobs: int | None = None  # jobs at once, whatever the memory
    passes: MeasuredPasses | None = None
    kept: KeptActivations | None = None  # where they may be: see `layers_again`
    # Of the numbers of GPUs that its task may take those that hold as many of its jobs as any.
    widths: tuple[int, ...] = field(default=(), metadata=LEFT_OUT)  # none: all do, or nobody knows

    def __post_init__(self) -> None:
        if self.max_jobs is not None and self.max_jobs < 1:
            raise ValueError(f"max_jobs must be at least 1, got {self.max_jobs}")

    def bytes(self, jobs: Iterable[Job], max_length: int) -> int:
        """Most bytes held while `jobs` train together on sequences of up to `max_length` tokens."""
        if self.passes is not None:
            return self.held(load_of(jobs, max_length))
        total = self.fixed  # added up at once: a trace asks this of every job, twice
        for job in jobs:
            chosen = job.hyperparameters
            per_token = self.per_token + self.per_rank_token * chosen.rank
            total += self.per_rank * chosen.rank + per_token * chosen.batch_size * max_length
        return total

    def held(self, load: Load) -> int:
        kept = self.fixed + self.per_rank * load.ranks
        if self.passes is None or load.jobs == 0:
            return kept + self.per_token * load.tokens + self.per_rank_token * load.rank_tokens
        if not self.passes.peaks:
            return max(kept, self.capacity + 1)
        return kept + self.passes.bytes(load, self.per_token)

    def fits(self, jobs: Collection[Job], max_length: int) -> bool:
        if self.max_jobs is not None and len(jobs) > self.max_jobs:
            return False
        return self.bytes(jobs, max_length) <= self.capacity

    def num_fitting(self, jobs: Iterable[Job], max_length: int) -> int:
        """Those that an empty GPU could hold, each by itself."""
        return sum(self.fits((job,), max_length) for job in jobs)

    def most_rows(self, jobs: Sequence[Job], max_length: int) -> int:
        """Of a bank of adapters while these jobs train side by side. Between passes it may shrink
        or grow to as many, one of its tensors twice there."""
        memory = self.keeping
        ranks = sum(job.hyperparameters.rank for job in jobs)
        own = memory.bytes(jobs, max_length) - memory.per_rank * ranks
        moving = memory.passes.per_rank_moving if memory.passes is not None else 0
        can_move = (memory.capacity - memory.fixed) // max(1, memory.per_rank + moving)
        return max(ranks, min((memory.capacity - own) // max(1, memory.per_rank), can_move))

    def layers_again(self, load: Load, layers: int) -> int:
        """Of so many layers those whose activations a pass of these jobs computes again: as few as
        there is no room for."""
        if self.kept is None:
            return layers if self.passes is not None and self.passes.recompute else 0
        if self.kept.passes is not None and not self.kept.passes.peaks:
            return layers  # none had room when it was measured
        most = self.keeping.held(load)
        if most <= self.capacity:
            return 0
        missing, saved = most - self.capacity, most - self.held(load)  # the latter by all layers
        return layers if missing >= saved else math.ceil(layers * missing / saved)

    @property
    def keeping(self) -> "MemoryModel":
        """Of passes that keep all they may."""
        kept = self.kept
        if kept is None:
            return self
        return replace(
            self,
            fixed=self.fixed + kept.exchanged,
            per_token=kept.per_token,
            per_rank_token=kept.per_rank_token,
            passes=kept.passes,
            kept=None,
        )


def saving_pays(
    keeping: MemoryModel,
    again: MemoryModel,
    task: Task,
    tokens_per_second: Callable[[MemoryModel], float],
) -> bool:
    """Whether jobs are to be admitted that do not fit with all their activations: if one fits in no
    other way, or if those that then fit beside one another train faster. `tokens_per_second` is
    asked with as many jobs as a model has room for."""
    if keeping.fits(task.jobs, task.max_length):
        return False
    few, many = (model.num_fitting(task.jobs, task.max_length) for model in (keeping, again))
    return many > few or tokens_per_second(again) > _GAIN * tokens_per_second(keeping)


def holding_widths(task: Task, memory_on: Callable[[int], MemoryModel]) -> tuple[int, ...]:
    """Those of a task's `widths`, for its memory; none where it makes no difference."""
    counts = {
        width: memory_on(width).num_fitting(task.jobs, task.max_length) for width in task.widths
    }
    most = max(counts.values(), default=0)
    found = tuple(width for width, count in counts.items() if count == most)
    return () if len(found) == len(counts) else found


def joined(keeping: MemoryModel, again: MemoryModel) -> MemoryModel:
    """Jobs are admitted by what they hold if all activations are computed again, and passes with
    room keep them."""
    kept = KeptActivations(
        per_token=keeping.per_token,
        per_rank_token=keeping.per_rank_token,
        passes=keeping.passes,
        exchanged=max(0, keeping.fixed - again.fixed),
    )
    return replace(again, kept=kept)
