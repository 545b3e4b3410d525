"""What is not as the log has it when a run goes on: the GPUs, and how many of them a task takes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby

from alto_policy.events import Event, NodeDown, NodeUp, TaskResized
from alto_policy.types import Gpu, GpuId, TaskId
from alto_policy.view import ClusterView, Status

__all__ = ["NO_MOVE", "Move", "Resized", "nodes_of", "numbered", "resized"]


@dataclass(frozen=True, slots=True)
class Resized:
    """The GPUs that a task takes from now on, and among which a policy may choose, if others than
    before."""

    task: TaskId
    num_gpus: int
    widths: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Move:
    """Is told as any loss and repair of nodes, so that the log stays one."""

    gone: tuple[str, ...] = ()  # nodes that are up in the log
    come: tuple[tuple[Gpu, ...], ...] = ()  # GPUs of a node each
    back: tuple[str, ...] = ()  # nodes that are down in the log, and have the GPUs of before
    resized: tuple["Resized", ...] = ()  # tasks that take another number of GPUs

    @classmethod
    def of(
        cls, view: ClusterView, present: Sequence[Gpu], lost: Iterable[str], num_gpus: int
    ) -> "Move":
        """To GPUs that are `present`, in place of all others; nodes that are `lost` in the log are
        down already. Each task takes `num_gpus` from now on, whoever may have chosen before."""
        lost, before, now = frozenset(lost), nodes_of(view.gpus), nodes_of(present)
        same = {node for node in now if _kinds(now[node]) == _kinds(before.get(node, ()))}
        others = [gpus for node, gpus in now.items() if node not in same]
        return cls(
            gone=tuple(node for node in before if node not in same and node not in lost),
            come=numbered(others, view.gpus),
            back=tuple(node for node in now if node in same and node in lost),
            resized=resized(view, num_gpus),
        )

    @property
    def replaced(self) -> frozenset[str]:
        """Nodes that have other GPUs than before, or had none."""
        return frozenset(gpus[0].node for gpus in self.come)

    def after(self, gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
        """What these GPUs of the ledger become."""
        kept = (gpu for gpu in gpus if gpu.node not in self.replaced)
        return (*kept, *(gpu for node in self.come for gpu in node))

    def keeps(self, view: ClusterView, task: TaskId, gpus: Iterable[GpuId]) -> bool:
        """Whether an executor of the task on these GPUs may stay."""
        node_of = {gpu.id: gpu.node for gpu in view.gpus}
        gpus = tuple(gpus)
        is_resized = any(one.task == task and one.num_gpus != len(gpus) for one in self.resized)
        return not is_resized and not any(node_of[gpu] in self.gone for gpu in gpus)

    def going(self, t: float) -> Sequence[Event]:
        """To be told before the loss of executors: nobody is to start another on what is gone, or
        with GPUs of another number."""
        downs = [NodeDown(t, node) for node in self.gone]
        resized = [TaskResized(t, one.task, one.num_gpus, one.widths) for one in self.resized]
        return (*downs, *resized)

    def coming(self, t: float) -> Sequence[Event]:
        """To be told after it: by then nobody holds a GPU that is replaced."""
        backs = [NodeUp(t, node) for node in self.back]
        return (*backs, *(NodeUp(t, gpus[0].node, gpus) for gpus in self.come))


NO_MOVE = Move()


def nodes_of(gpus: Iterable[Gpu]) -> Mapping[str, tuple[Gpu, ...]]:
    """GPUs by the name of their node, nodes in the order of their first GPU."""
    found: dict[str, tuple[Gpu, ...]] = {}
    for node, own in groupby(gpus, key=lambda gpu: gpu.node):
        found[node] = (*found.get(node, ()), *own)
    return found


def resized(view: ClusterView, num_gpus: int, widths: tuple[int, ...] = ()) -> tuple[Resized, ...]:
    """Of all tasks that are not over, those that do not take `num_gpus`, or what was chosen before
    out of `widths`."""
    return tuple(
        Resized(task.id, now, None if task.widths == widths else widths)
        for task in view.tasks().values()
        for now in (task.num_gpus if task.num_gpus in widths else num_gpus,)
        if (task.num_gpus, task.widths) != (now, widths)
        and len(view.jobs(task.id, Status.ENDED)) < len(task.jobs)
    )


def numbered(nodes: Sequence[Sequence[Gpu]], before: Sequence[Gpu]) -> tuple[tuple[Gpu, ...], ...]:
    """With ids after those that other nodes had before: those of a node are next to each other."""
    names = {node[0].node for node in nodes}
    taken = (gpu.id for gpu in before if gpu.node not in names)
    free = count(max(taken, default=-1) + 1)
    return tuple(tuple(replace(gpu, id=GpuId(next(free))) for gpu in node) for node in nodes)


def _kinds(gpus: Iterable[Gpu]) -> Sequence[str]:
    return [gpu.kind for gpu in gpus]
