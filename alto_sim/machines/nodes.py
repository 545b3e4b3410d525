"""The cluster as its user describes it: a YAML file of nodes, each with GPUs of one kind.

nodes:
  - { count: 2, gpu: H100, gpus: 8 }
  - { count: 4, gpu: A100-80GB, gpus: 4 }
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from alto_policy.types import Gpu, GpuId
from alto_runs.costs.step_profile import StepProfile
from alto_runs.errors import UserError
from alto_runs.fields import FieldError, decode_fields, told
from alto_runs.profile import read_profile, shipped_profile
from alto_sim.machines.hardware import MOST_GPUS

__all__ = ["ClusterFile", "NodeGroup", "Nodes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """Equal nodes."""

    gpu: str  # kind, by its data sheet's name or its driver's
    gpus: int  # of each node
    count: int = 1
    # Of a trace's jobs, over that of the GPUs which they were recorded on; searches have none.
    speed: float | None = None

    def __post_init__(self) -> None:
        if not self.gpu.strip():
            raise ValueError(f"gpu must be the name of a kind, got {self.gpu!r}")
        for name in ("gpus", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.speed is not None and not 0 < self.speed < math.inf:
            raise ValueError(f"speed must be above 0, got {self.speed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """Where several kinds would do, those of the first nodes are taken first."""

    nodes: tuple[NodeGroup, ...] = ()


class Nodes:
    """The GPUs of a cluster's file, with the step times of each kind. Raises UserError.

    Times are those of a profile's rows, the shipped ones if none are given; a kind that they do
    not hold is estimated by its data sheet.
    """

    def __init__(self, path: Path, profile: Path | None = None) -> None:
        # With a parser that most runs do without.
        from alto_runs.study_fields.document import read_document

        self.path = path
        self._rows_of = profile
        document = read_document(path)
        try:
            self._nodes = _checked(decode_fields(ClusterFile, document))
        except FieldError as error:
            raise UserError(f"{path}: {told(error, document)}") from error
        self.counts: dict[str, int] = {}
        for group in self._nodes:
            self.counts[group.gpu] = self.counts.get(group.gpu, 0) + group.count * group.gpus

    @property
    def num_gpus(self) -> int:
        return sum(self.counts.values())

    @property
    def told(self) -> str:
        return ", ".join(f"{each.count} x {each.gpus} {each.gpu}" for each in self._nodes)

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        kinds = [(group.gpu, group.gpus) for group in self._nodes for _ in range(group.count)]
        places = [(kind, f"node{n}") for n, (kind, count) in enumerate(kinds) for _ in range(count)]
        return tuple(
            Gpu(id=GpuId(number), kind=kind, node=node)
            for number, (kind, node) in enumerate(places)
        )

    @cached_property
    def profiles(self) -> Mapping[str, StepProfile]:
        """Of searches: by kind. Raises UserError."""
        rows = read_profile(self._rows_of or shipped_profile())
        found: dict[str, StepProfile] = {}
        for number, group in enumerate(self._nodes):
            if group.speed is not None:
                raise self._mistake(number, "speed", "expected none, searches have step times")
            try:
                if group.gpu not in found:
                    found[group.gpu] = StepProfile(rows, gpu=group.gpu)
            except UserError as error:
                raise UserError(f"{self.path}: nodes[{number}].{error}") from error
        return found

    def speeds(self) -> Mapping[str, float]:
        """Of a trace's jobs: by kind. One kind alone may go without. Raises UserError."""
        found: dict[str, float] = {}
        for number, group in enumerate(self._nodes):
            if group.speed is None and len(self.counts) > 1:
                what = "jobs of a trace lasted as long on one kind, expected how fast this one is"
                raise self._mistake(number, "speed", what)
            speed = 1.0 if group.speed is None else group.speed
            if found.setdefault(group.gpu, speed) != speed:
                raise self._mistake(number, "speed", f"expected {found[group.gpu]}, as before")
        return found

    def _mistake(self, number: int, name: str, what: str) -> UserError:
        return UserError(f"{self.path}: nodes[{number}].{name}: {what}")


def _checked(file: ClusterFile) -> tuple[NodeGroup, ...]:
    """Raises FieldError."""
    if not file.nodes:
        raise FieldError(("nodes",), "expected at least one, such as { gpu: H100, gpus: 8 }")
    total = sum(group.count * group.gpus for group in file.nodes)
    if total > MOST_GPUS:
        raise FieldError(("nodes",), f"expected {MOST_GPUS:,} GPUs at most, got {total:,}")
    return file.nodes
