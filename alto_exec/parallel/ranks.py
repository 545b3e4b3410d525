"""The processes that share one executor: how they talk, and how the death of one is noticed."""

import atexit
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import NoReturn
from weakref import WeakSet

import torch
import torch.distributed as dist

from alto_exec.adapters.bank_memory import Recordings
from alto_exec.parallel.meeting import STORED, meet

__all__ = [
    "LOST_RANK_STATUS",
    "Ranks",
    "is_launched_beside_another",
    "join_launched_ranks",
    "join_ranks",
    "num_launched_ranks",
    "ranks_in_one_memory",
]

LOST_RANK_STATUS = 3  # of a process that exits because another one is gone
# The ranks wait as long as the leader does, for a timer of its policy perhaps. One that dies closes
# its connections, and is noticed by that at once.
_PATIENCE = timedelta(days=1)
_LEADER = 0
_is_exiting = threading.Lock()  # one line is said, whoever notices first


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `size`. Each step is made by all of them, in the same order."""

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup  # NCCL for what is on GPUs, Gloo for the rest
    watch: dist.ProcessGroup
    reach_one_another: bool = False  # each GPU can read the memory of all others
    _recorded: WeakSet[Recordings] = field(default_factory=WeakSet, compare=False)

    @property
    def is_leader(self) -> bool:
        return self.rank == _LEADER

    def most(self, value: int) -> int:
        """The largest of the ranks' values."""
        found = torch.tensor(value)
        self._do(lambda: dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group))
        return int(found)

    def all(self, fact: bool) -> bool:
        """Whether it is so on every rank."""
        return not self.most(int(not fact))

    def each(self, *values: int) -> Sequence[tuple[int, ...]]:
        """Some numbers of each rank, by rank."""
        own = torch.tensor(values)
        found = [torch.empty_like(own) for _ in range(self.size)]
        self._do(lambda: dist.all_gather(found, own, group=self.group))
        return [tuple(one.tolist()) for one in found]

    def tell(self, text: str = "") -> str:
        """What the leader says, to all."""
        content = _bytes(text)
        length = torch.tensor(len(content))
        self._do(lambda: dist.broadcast(length, _LEADER, group=self.group))
        if not self.is_leader:
            content = torch.empty(int(length), dtype=torch.uint8)
        self._do(lambda: dist.broadcast(content, _LEADER, group=self.group))
        return _text(content)

    def hear(self, text: str) -> Sequence[str]:
        """What each rank says, by rank."""
        content = _bytes(text)
        padded = torch.full((self.most(len(content)),), ord(" "), dtype=torch.uint8)
        padded[: len(content)] = content
        found = [torch.empty_like(padded) for _ in range(self.size)]
        self._do(lambda: dist.all_gather(found, padded, group=self.group))
        return [_text(one) for one in found]

    def watch_over(self, recordings: Recordings) -> None:
        """Have them cleared before the ranks leave: NCCL waits for all that was recorded of it."""
        self._recorded.add(recordings)

    def forget(self) -> None:
        """Have them cleared: the end of a process waits as well."""
        for recordings in self._recorded:
            recordings.clear()

    def leave(self) -> None:
        """Say farewell: from now on a connection that closes is no death. All ranks leave."""
        self.forget()
        if self.size > 1:
            before = (self.rank - 1) % self.size
            self._do(lambda: dist.send(torch.zeros(1), before, group=self.watch))
        self._do(lambda: dist.barrier(group=self.watch))
        dist.destroy_process_group()

    def _do(self, act: Callable[[], object]) -> None:
        try:
            act()
        except RuntimeError as error:
            _exit_alone(self.rank, self.size, error)


def join_ranks(rank: int, size: int, address: str, device: torch.device) -> Ranks:
    """Meet the other processes at `address`, such as `tcp://127.0.0.1:29500` or `env://`, or as a
    `stored_meeting`.

    From then on this process exits, with one line and LOST_RANK_STATUS, if one of them dies.
    """
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    here = os.environ.get("LOCAL_WORLD_SIZE")  # of ranks that are launched: so many on this node
    is_here = here == str(size) or (
        here is None and address.startswith(("file://", "tcp://127.0.0.1"))
    )
    if is_here:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if address.startswith(STORED):
        at = meet(address, rank, size)
        dist.init_process_group(backend, store=at, rank=rank, world_size=size, timeout=_PATIENCE)
    else:
        dist.init_process_group(
            backend, init_method=address, rank=rank, world_size=size, timeout=_PATIENCE
        )
    watch = dist.new_group(backend="gloo", timeout=_PATIENCE)
    assert dist.group.WORLD is not None
    ranks = Ranks(rank, size, device, dist.group.WORLD, watch)
    if is_here and device.type == "cuda":
        ranks = replace(ranks, reach_one_another=_reach_one_another(ranks))
    atexit.register(ranks.forget)
    if size > 1:
        threading.Thread(target=_watch, args=(ranks,), daemon=True).start()
    return ranks


def _reach_one_another(ranks: Ranks) -> bool:
    """Asked while all are at the meeting: later on one may want to know it alone. Processes that
    see one GPU each do not know of the others'."""
    devices = [one for (one,) in ranks.each(ranks.device.index)]
    return ranks.all(
        len(set(devices)) == ranks.size
        and all(
            torch.cuda.can_device_access_peer(ranks.device, each)
            for each in devices
            if each != ranks.device.index
        )
    )


def num_launched_ranks() -> int:
    """How many processes torchrun, or who speaks as it does, has launched for this program."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_launched_beside_another() -> bool:
    """Whether another of these processes leads this one."""
    return int(os.environ.get("RANK", "0")) != _LEADER


def join_launched_ranks(device: torch.device, address: str = "env://") -> Ranks:
    """Meet them, each on a device of its own, where torchrun says or at the `address`."""
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if num_launched_ranks() == 1:
        return join_ranks(0, 1, "tcp://127.0.0.1:0", device)
    return join_ranks(int(os.environ["RANK"]), num_launched_ranks(), address, device)


def ranks_in_one_memory(device: torch.device, size: int) -> int:
    """Of so many ranks those that share what a device has: of a CPU all of them."""
    return size if device.type == "cpu" else 1


def _watch(ranks: Ranks) -> None:
    """Wait for the farewell of the next rank: a GPU that waits for a dead one waits for ever."""
    try:
        dist.recv(torch.zeros(1), (ranks.rank + 1) % ranks.size, group=ranks.watch)
    except RuntimeError as error:
        _exit_alone(ranks.rank, ranks.size, error)


def _exit_alone(rank: int, size: int, error: RuntimeError) -> NoReturn:
    """What was trained since the last checkpoints is lost, as with any process that is killed."""
    _is_exiting.acquire()
    line = str(error).splitlines()[0].partition(". ")[0]
    sys.stderr.write(
        f"alto: rank {rank} of {size} stops, since another is gone; --resume goes on ({line})\n"
    )
    sys.stderr.flush()
    os._exit(LOST_RANK_STATUS)


def _bytes(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _text(content: torch.Tensor) -> str:
    return content.numpy().tobytes().decode()
