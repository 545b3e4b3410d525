"""How a task's backbone lies on its GPUs: whole on each, or in shards (paper, section 6.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from alto_policy.executors.exchange import PassTokens, ShardedLinears, Way
from alto_policy.executors.packing import by_batch_size
from alto_policy.memory import Load, MemoryModel
from alto_policy.types import Task

__all__ = ["Layout", "PassCosts", "Spread", "choose_layout", "count_whole_layers"]

# Measured on H100s: what a layer's launches take the host, and products with frozen weights.
_LAUNCH_SECONDS, _FLOPS_PER_SECOND = 5e-3, 5e14
_FLOPS_PER_WEIGHT = 4  # of a token: forward, and the gradient of the input


class Layout(StrEnum):
    COPIES = "copies"  # each GPU for itself
    SHARDS = "shards"  # each GPU keeps a part of every layer; see `exchange`


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of a task's backbone over its GPUs."""

    layout: Layout
    whole_layers: int = 0  # that each GPU keeps whole, though the others are in shards


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCosts:
    """Seconds of a fused pass on one GPU, from a profile."""

    launches: float  # of a pass that is not recorded
    per_token: float
    linears: ShardedLinears  # what is in shards, where the backbone is
    may_travel: bool = True  # tokens to the shards; else these come to the tokens
    # Tokens of one GPU up to which passes are recorded: by a copy of the backbone, and in shards.
    recorded_alone: int = 0
    recorded_together: int = 0

    @classmethod
    def estimated(
        cls,
        linears: ShardedLinears,
        parameters: int,
        *,
        recorded_alone: int,
        recorded_together: int,
        recomputes: bool,
    ) -> "PassCosts":
        """From the sizes of a frozen backbone and of its layers, at the rates of an H100.

        Where activations are computed again nothing is recorded, and no tokens travel: they would
        once more.
        """
        return cls(
            launches=_LAUNCH_SECONDS * linears.layers,
            per_token=_FLOPS_PER_WEIGHT * parameters / _FLOPS_PER_SECOND,
            linears=linears,
            may_travel=not recomputes,
            recorded_alone=0 if recomputes else recorded_alone,
            recorded_together=0 if recomputes else recorded_together,
        )

    def alone(self, tokens: Sequence[int]) -> float:
        """Of a pass of so many tokens on each GPU, by a backbone of its own."""
        is_recorded = max(tokens) <= self.recorded_alone
        return (0.0 if is_recorded else self.launches) + self.per_token * max(tokens)

    def together(self, tokens: Sequence[int]) -> float:
        """By one in shards, the way that an executor takes. The launches between exchanges of a
        pass that is not recorded are within the time of those."""
        passed = PassTokens(tuple(tokens), tuple(tokens))
        is_recorded = max(tokens) <= self.recorded_together
        way, exchange = self.linears.cheapest(
            passed, is_recorded=is_recorded, may_travel=self.may_travel
        )
        is_launched = not is_recorded and way is not Way.TRAVELLING
        return (self.launches if is_launched else 0.0) + self.per_token * max(tokens) + exchange


def choose_layout(task: Task, copies: MemoryModel, shards: MemoryModel, costs: PassCosts) -> Layout:
    """Copies, unless a job fits beside shards alone, or shards leave room for so many more jobs
    that the GPUs train faster in spite of what they hand each other."""
    fitting = [memory.num_fitting(task.jobs, task.max_length) for memory in (copies, shards)]
    if fitting[0] < fitting[1]:
        return Layout.SHARDS
    apart, split = (
        [load.tokens for load in _first_loads(task, memory)] for memory in (copies, shards)
    )
    # A pass of nothing that is recorded takes no time.
    is_faster = sum(split) * costs.alone(apart) > sum(apart) * costs.together(split)
    return Layout.SHARDS if is_faster else Layout.COPIES


def count_whole_layers(task: Task, shards: MemoryModel, layer_bytes: int) -> int:
    """Layers that each GPU can keep whole, each for so many bytes more, and still hold the jobs
    that it would hold beside shards alone: none of those has to be gathered."""
    loads = _first_loads(task, shards)
    return max(0, shards.capacity - max(shards.held(load) for load in loads)) // layer_bytes


def _first_loads(task: Task, memory: MemoryModel) -> list[Load]:
    """The longest job first, each to the GPU that has the least to do, as far as they fit."""
    loads = [Load()] * task.num_gpus
    for job in by_batch_size(task.jobs):
        number = min(range(len(loads)), key=lambda index: (loads[index].tokens, index))
        load = loads[number].plus(job, task.max_length)
        is_one_too_many = memory.max_jobs is not None and load.jobs > memory.max_jobs
        if not is_one_too_many and memory.held(load) <= memory.capacity:
            loads[number] = load
    return loads
