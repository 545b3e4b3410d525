"""What `adapter_parallel` measures: ways to train on several GPUs, and the points of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from alto_policy.executors.exchange import Way

__all__ = ["GRID", "POINTS", "SHARDS", "Point", "Shards", "plan", "points_of"]


@dataclass(frozen=True, slots=True)
class Point:
    jobs: int
    batch_size: int
    length: int

    @property
    def tokens(self) -> int:
        return self.jobs * self.batch_size * self.length


@dataclass(frozen=True, slots=True)
class Shards:
    """Adapter parallelism, and the way that all of its passes go."""

    way: Way | None = None
    records: bool = True


SHARDS = {
    "adapter-parallel": Shards(),
    "gathered": Shards(Way.GATHERED),
    "gathered-launched": Shards(Way.GATHERED, records=False),
    "copied": Shards(Way.COPIED),
    "copied-launched": Shards(Way.COPIED, records=False),
    "travelling": Shards(Way.TRAVELLING),
    "travelling-launched": Shards(Way.TRAVELLING, records=False),
}
# What the bars are of first: the paper's peak, and how far from perfect scaling.
PEAK, SCALING = Point(8, 2, 256), Point(32, 1, 1024)
SHORT = (PEAK, Point(8, 1, 256), Point(8, 4, 256), Point(8, 8, 256))
FEW = (PEAK, Point(8, 1, 256), Point(1, 1, 256))  # tokens
FEW_OR_FULL = (PEAK, SCALING, *FEW[1:])
POINTS: dict[str, tuple[Point, ...]] = {
    "adapter-parallel": (PEAK, SCALING, Point(32, 1, 256), *SHORT[1:], Point(8, 2, 1024)),
    "gathered": FEW_OR_FULL,
    "gathered-launched": FEW_OR_FULL,
    "copied": FEW_OR_FULL,
    "copied-launched": FEW_OR_FULL,
    "travelling": FEW,
    "travelling-launched": FEW,
    "fsdp2-peft": (*SHORT, Point(8, 2, 1024), Point(8, 1, 1024)),
    "one-gpu": (SCALING, Point(32, 1, 256), PEAK),
    "copies": (PEAK, SCALING, Point(32, 1, 256)),
    "ddp-peft": (PEAK, Point(8, 8, 256)),
}
GRID = tuple(
    Point(jobs, batch_size, length)
    for length in (256, 1024)
    for jobs in (8, 32)
    for batch_size in (1, 2, 4, 8)
)


def points_of(method: str, *, is_whole: bool) -> tuple[Point, ...]:
    """The most important ones, before the rest of the grid; one GPU has no ranks to be compared."""
    first = POINTS[method]
    if not is_whole or method == "one-gpu":
        return first
    return (*first, *(point for point in GRID if point not in first))


def plan(models: Sequence[str], methods: Sequence[str]) -> list[tuple[str, str]]:
    """What the bars are of comes first."""
    first = ["adapter-parallel", "gathered", "copied", "travelling", "fsdp2-peft", "one-gpu"]
    sections = [(name, method) for name in models for method in first]
    sections += [(name, method) for method in POINTS if method not in first for name in models]
    return [(name, method) for name, method in sections if method in methods]
