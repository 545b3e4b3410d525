"""Seconds of passes over a backbone whose layers lie in shards on several GPUs.

The ranks go in step: a pass begins and ends on all of them at once, and each has jobs of its own.
What they hand one another, and by which of two ways in a pass, is
`alto_policy.executors.exchange`'s.

*Gathered*: every rank receives all shards, forward and back, and computes its own jobs. All-gathers
lie beside the arithmetic, and yet nearly all of their time is paid where the GPUs are what takes
time; where the hosts are, they hide. *Copied* by engines of their own, shards are slower and hide.

*Travelling*: the weights stay, row by row of each group of linears. The ranks hand one another
their rows of x, each computes its slice of the outputs for all tokens, and an exchange brings the
outputs home; backward dY goes to the holders of its columns, and their parts of dX to the owners.
Nothing of that hides: a layer needs what the one before it has sent.

    gathered    max(host, own arithmetic + exchange)
    travelling  max(host, own arithmetic without the frozen linears + the frozen linears of the
                tokens of all ranks in slices of 1/N + exchange)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from alto_policy.executors.exchange import LAYERS_AT_HAND, PassTokens, ShardedLinears, Way
from alto_policy.memory import SPARE, Load, MemoryModel, joined, recorded_rows
from alto_policy.types import Job, Task
from alto_runs.costs.recording import most_recorded_in_shards
from alto_runs.costs.step_profile import StepProfile
from alto_runs.costs.work import (
    EVALUATED_AT_ONCE,
    FORWARD_SHARES,
    PRODUCTS,
    SECOND_TERMS,
    Crew,
    PassWork,
    blocks_seconds,
    crew_of,
    second_terms,
)

__all__ = ["WEIGHT_BYTES", "RanksInStep"]

WEIGHT_BYTES = 2
_WHOLE = (1.0,) * len(SECOND_TERMS)  # of a training pass
_Key = tuple[str, int, int, float, tuple[Crew, ...]]
_Sides = tuple[float, float]  # of a rank: seconds of the host and of the GPU
_Evaluated = tuple[str, int, float, int, tuple[tuple[Crew, ...], ...]]


@dataclass(frozen=True, slots=True)
class RanksInStep:
    """`GangTimes` of one kind of GPU. With `again`, a pass computes the activations of as few
    layers again as a rank has no room for. Without `adapter_parallel` all ranks train one job at a
    time and split its batch: jobs take turns within a pass. Passes are recorded where those of all
    ranks can be, if the executor `records`."""

    profile: StepProfile
    again: StepProfile | None = None  # the same measurements, with activations computed again
    adapter_parallel: bool = True
    records: bool = True
    reads_peers: bool = True  # by engines of the GPUs, which are of one host with NVLink
    bounded: Callable[[MemoryModel], MemoryModel] = lambda memory: memory  # to what there may be
    _passes: dict[_Key, float] = field(default_factory=dict, init=False)
    _evaluations: dict[_Evaluated, float] = field(default_factory=dict, init=False)
    _launched: dict[tuple[str, float, Crew], tuple[_Sides, _Sides]] = field(
        default_factory=dict, init=False
    )
    _memories: dict[tuple[str, int, int | None], MemoryModel] = field(
        default_factory=dict, init=False
    )

    def pass_seconds(self, by_gpu: Sequence[Sequence[Job]], task: Task) -> float:
        """Of one pass in which each GPU trains its jobs."""
        if self.adapter_parallel:
            return self._training([crew_of(jobs) for jobs in by_gpu if jobs], task)
        alone = [[crew_of((_share_of(job, task.num_gpus),))] for jobs in by_gpu for job in jobs]
        return math.fsum(self._training(crews * task.num_gpus, task) for crews in alone)

    def evaluation_seconds(self, by_gpu: Sequence[Sequence[Job]], task: Task) -> float:
        """Each GPU evaluates its jobs one after another, beside those of the others."""
        rows = tuple([tuple([crew_of((job,)) for job in jobs]) for jobs in by_gpu])
        sequences = self.profile.validated_sequences(task)
        key = task.backbone, task.num_gpus, task.mean_length, sequences, rows
        if key not in self._evaluations:
            self._evaluations[key] = self._evaluating(rows, sequences, task)
        return self._evaluations[key]

    def _evaluating(self, rows: Sequence[Sequence[Crew]], sequences: int, task: Task) -> float:
        if not self.adapter_parallel:  # its sequences are split, and one takes the turn
            rows = [[crew for jobs in rows for crew in jobs]]
        total = 0.0
        for number in range(max(map(len, rows), default=0)):
            here = [crews[number] for crews in rows if number < len(crews)]
            works = [self.profile.work_of_crew(crew, task) for crew in here]
            tokens = sequences * works[0].length
            if not self.adapter_parallel:
                tokens = -(-tokens // task.num_gpus)
                works *= task.num_gpus
            forward = [_resized(work, min(tokens, EVALUATED_AT_ONCE)) for work in works]
            passes = max(1.0, tokens / EVALUATED_AT_ONCE)
            total += passes * self._seconds(self.profile, forward, task, is_training=False)
        return total

    def memory_model(self, task: Task, max_jobs: int | None = None) -> MemoryModel:
        """On one rank: its share of the layers, those at hand whole, and what is not split."""
        key = task.backbone, task.num_gpus, max_jobs
        if key not in self._memories:  # as long to work out as hundreds of passes, which ask for it
            held = self._held(self.profile, task, max_jobs)
            if self.again is not None:
                held = joined(held, self._held(self.again, task, max_jobs))
            self._memories[key] = held
        return self._memories[key]

    def _held(self, profile: StepProfile, task: Task, max_jobs: int | None) -> MemoryModel:
        whole, shape = profile.memory_model(task, max_jobs), profile.shape_of(task)
        layers = WEIGHT_BYTES * shape.block_parameters
        fixed = (
            whole.fixed - layers + layers / task.num_gpus + LAYERS_AT_HAND * layers / shape.layers
        )
        if not profile.recompute:
            fixed += self.linears(task).most_exchanged_bytes()
        return self.bounded(replace(whole, fixed=math.ceil(fixed)))

    def _training(self, crews: Sequence[Crew], task: Task) -> float:
        """Of the ranks that have jobs."""
        if not crews:
            return 0.0
        key = task.backbone, task.num_gpus, task.max_length, task.mean_length, tuple(crews)
        if key not in self._passes:
            share = self._share_again(crews, task)
            works = [self.profile.work_of_crew(crew, task) for crew in crews]
            self._passes[key] = (
                self._seconds(self.profile, works, task, is_training=True)
                if share == 0
                else self._seconds_again(crews, task, share)
            )
        return self._passes[key]

    def _share_again(self, crews: Sequence[Crew], task: Task) -> float:
        """Of the layers whose activations are computed again, as the rank with the least room has
        it."""
        if self.again is None:
            return 0.0
        memory, layers = self.memory_model(task), self.profile.shape_of(task).layers
        loads = [_load_of(crew, task.max_length) for crew in crews]
        return max(memory.layers_again(load, layers) for load in loads) / layers

    def _seconds_again(self, crews: Sequence[Crew], task: Task, share: float) -> float:
        """Of a training pass that computes the activations of a share of the layers again: it is
        launched, and weights come to the tokens."""
        hosts, own = [], []
        for crew in crews:
            (host, seconds), (host_again, seconds_again) = self._both(crew, task)
            hosts.append((1 - share) * host + share * host_again)
            own.append((1 - share) * seconds + share * seconds_again)
        counts = [task.max_length * crew.rows for crew in crews]
        tokens = (*counts, *[0] * (task.num_gpus - len(counts)))
        _, exchange = self.linears(task).cheapest(
            PassTokens(tokens, tokens), is_recorded=False, may_travel=False
        )
        return max(*hosts, max(own) + exchange)

    def _both(self, crew: Crew, task: Task) -> tuple[_Sides, _Sides]:
        """Of a rank whose pass is launched: with all activations kept, and with all of them
        computed again."""
        assert self.again is not None
        key = task.backbone, task.mean_length, crew
        if key not in self._launched:
            kept = replace(self.profile.work_of_crew(crew, task), is_recorded=False)
            again = self.again.work_of_crew(crew, task)
            self._launched[key] = (
                _sides(self.profile, kept, _WHOLE),
                _sides(self.again, again, _WHOLE),
            )
        return self._launched[key]

    def _seconds(
        self,
        profile: StepProfile,
        works: Sequence[PassWork],
        task: Task,
        *,
        is_training: bool,
    ) -> float:
        """Of one pass, by the way that the executor takes."""
        shares = _WHOLE if is_training else FORWARD_SHARES
        layers = self.linears(task)
        is_recorded = self.records and is_training and all(work.is_recorded for work in works)
        is_recorded &= max(work.tokens for work in works) <= _most_recorded(layers)
        works = [replace(work, is_recorded=is_recorded) for work in works]
        sides = [_sides(profile, work, shares) for work in works]
        host, own = max(side[0] for side in sides), max(side[1] for side in sides)
        counts = [recorded_rows(w.tokens, SPARE) if is_recorded else w.tokens for w in works]
        tokens = (*counts, *[0] * (task.num_gpus - len(works)))
        passed = PassTokens(tokens, tokens if is_training else (0,) * task.num_gpus)
        may_travel = not profile.recompute
        way, exchange = layers.cheapest(passed, is_recorded=is_recorded, may_travel=may_travel)
        if way is not Way.TRAVELLING:
            return max(host, own + exchange)
        together = replace(works[0], tokens=sum(tokens))
        share = shares[PRODUCTS]
        rest = max(
            side - share * _linears(profile, work)
            for work, (_, side) in zip(works, sides, strict=True)
        )
        linears = share * _linears(profile, together, task.num_gpus)
        return max(host, rest + linears + exchange)

    def linears(self, task: Task) -> ShardedLinears:
        """What is in shards."""
        shape = self.profile.shape_of(task)
        return ShardedLinears(
            num_gpus=task.num_gpus,
            layers=shape.layers,
            groups=shape.groups,
            item_bytes=WEIGHT_BYTES,
            reads_peers=self.reads_peers,
        )


@cache
def _most_recorded(linears: ShardedLinears) -> int:
    return most_recorded_in_shards(linears)


def _sides(profile: StepProfile, work: PassWork, shares: Sequence[float]) -> _Sides:
    """They lie beside one another."""
    terms = second_terms(work, profile.ceilings)
    parts = [f * t * s for f, t, s in zip(profile.factors, terms, shares, strict=True)]
    host = math.fsum(p for p, term in zip(parts, SECOND_TERMS, strict=True) if term.on_host)
    return host, math.fsum(parts) - host


def _linears(profile: StepProfile, work: PassWork, slices: int = 1) -> float:
    """What the frozen linears of the blocks have of the part of the products, with one of so many
    slices of their outputs."""
    return profile.factors[PRODUCTS] * blocks_seconds(work, profile.ceilings, slices)


def _load_of(crew: Crew, length: int) -> Load:
    """The highest rank is left out: only measured passes ask for it."""
    return Load(crew.jobs, crew.ranks, crew.rows * length, crew.rank_rows * length)


def _share_of(job: Job, ranks: int) -> Job:
    """What one rank trains of a job; a batch smaller than the ranks leaves some with padding."""
    chosen = job.hyperparameters
    return replace(
        job, hyperparameters=replace(chosen, batch_size=math.ceil(chosen.batch_size / ranks))
    )


def _resized(work: PassWork, tokens: int) -> PassWork:
    return replace(work, tokens=tokens, rank_tokens=work.ranks * tokens)
