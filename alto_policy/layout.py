"""How a task's backbone lies on its GPUs: whole on each, or in shards (paper, section 6.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from alto_policy.memory import Load, MemoryModel
from alto_policy.packing import by_batch_size
from alto_policy.types import Job, Task

__all__ = ["Layout", "PassCosts", "Spread", "choose_layout", "count_whole_layers"]

# Measured on H100s: what a layer's launches take the host, products with frozen weights, and the
# bytes that come in from the other GPUs in a second by which a pass gets longer.
_LAUNCH_SECONDS, _FLOPS_PER_SECOND, _GATHERED_BYTES_PER_SECOND = 5e-3, 5e14, 3.2e11
_FLOPS_PER_WEIGHT = 4  # of a token: forward, and the gradient of the input


class Layout(StrEnum):
    COPIES = "copies"  # each GPU for itself
    SHARDS = "shards"  # each GPU keeps a part, and gathers the others' when it needs them


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of a task's backbone over its GPUs."""

    layout: Layout
    whole_layers: int = 0  # that each GPU keeps whole, though the others are in shards


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCosts:
    """Seconds of a fused pass on one GPU, from a profile."""

    per_pass: float
    per_token: float
    gathering: float  # added by the other GPUs' shards; measured, little of it hides

    @classmethod
    def estimated(
        cls, *, layers: int, layer_bytes: int, parameters: int, num_gpus: int
    ) -> "PassCosts":
        """From the sizes of a frozen backbone, and of all its layers, at the rates of an H100."""
        received = 2 * layer_bytes * (num_gpus - 1) / num_gpus  # forward and back
        return cls(
            per_pass=_LAUNCH_SECONDS * layers,
            per_token=_FLOPS_PER_WEIGHT * parameters / _FLOPS_PER_SECOND,
            gathering=received / _GATHERED_BYTES_PER_SECOND,
        )


def choose_layout(task: Task, copies: MemoryModel, shards: MemoryModel, costs: PassCosts) -> Layout:
    """Copies, unless a job fits beside shards alone, or shards leave room for so many more jobs
    that the GPUs train faster in spite of the gathering."""
    fitting = [memory.num_fitting(task.jobs, task.max_length) for memory in (copies, shards)]
    if fitting[0] < fitting[1]:
        return Layout.SHARDS
    if _speed(task, shards, costs, costs.gathering) > _speed(task, copies, costs, 0.0):
        return Layout.SHARDS
    return Layout.COPIES


def count_whole_layers(task: Task, shards: MemoryModel, layer_bytes: int) -> int:
    """Layers that each GPU can keep whole, each for so many bytes more, and still hold the jobs
    that it would hold beside shards alone: none of those has to be gathered."""
    loads = _dealt(by_batch_size(task.jobs), task, shards)
    return max(0, shards.capacity - max(shards.held(load) for load in loads)) // layer_bytes


def _speed(task: Task, memory: MemoryModel, costs: PassCosts, gathering: float) -> float:
    """Tokens a second of the first passes, all GPUs together."""
    loads = _dealt(by_batch_size(task.jobs), task, memory)
    seconds = costs.per_pass + costs.per_token * max(load.tokens for load in loads) + gathering
    return sum(load.tokens for load in loads) / seconds


def _dealt(jobs: Sequence[Job], task: Task, memory: MemoryModel) -> list[Load]:
    """The longest first, each to the GPU that has the least to do, as far as they fit."""
    loads = [Load()] * task.num_gpus
    for job in jobs:
        number = min(range(len(loads)), key=lambda index: (loads[index].tokens, index))
        load = loads[number].plus(job, task.max_length)
        is_one_too_many = memory.max_jobs is not None and load.jobs > memory.max_jobs
        if not is_one_too_many and memory.held(load) <= memory.capacity:
            loads[number] = load
    return loads
