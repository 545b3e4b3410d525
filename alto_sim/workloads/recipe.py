"""A generated workload as a user asks for it, written as a trace."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from alto_policy.events import TaskArrived
from alto_policy.runlog import Entry, RunLog, dump_entry
from alto_runs.arguments import check_new_file
from alto_runs.costs.durations import TaskDurations
from alto_runs.costs.kinds import KindDurations
from alto_runs.costs.machine_costs import Machine
from alto_runs.costs.step_profile import NOT_MEASURED, Basis
from alto_runs.errors import UserError
from alto_runs.fields import FieldError, change_fields, told
from alto_runs.result import STEP_TIMES
from alto_runs.study_fields.document import read_document
from alto_sim.machines.carried import measured
from alto_sim.machines.nodes import Nodes
from alto_sim.workloads.drained import drained_seconds
from alto_sim.workloads.from_logs import synthetic
from alto_sim.workloads.generator import (
    PAPER_MIX,
    Arrivals,
    Bursty,
    Poisson,
    Recorded,
    TaskMix,
    arrivals_at_load,
    generate,
)
from alto_sim.workloads.loading import load_workload
from alto_sim.workloads.placed import placed
from alto_sim.workloads.workload import DEFAULT_LATENCIES

__all__ = ["AtLoad", "Generated", "Recipe", "read_mix"]

_LOG = ".jsonl"  # by which the file is known to be one
_WEIGHTED = ("lengths", "tenants")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLoad:
    """The mean gap at which tasks, all their jobs trained to the end, ask for that share of the
    time of so many GPUs, or of those of a `cluster`, which is a file of `Nodes`."""

    share: float
    num_gpus: int = 1
    cluster: Path | None = None
    profile: Path | None = None  # of their machine, the shipped one if None
    gpu: str | None = None  # another kind than the measured one


@dataclass(frozen=True, slots=True)
class Generated:
    tasks: tuple[TaskArrived, ...]
    basis: Basis | None = None  # of the times behind a load

    @property
    def told(self) -> str:
        tasks, jobs = self.tasks, sum(len(arrival.task.jobs) for arrival in self.tasks)
        text = f"{len(tasks)} tasks, {jobs} jobs, the last after {tasks[-1].t:,.0f} s"
        return f"{text}\n{NOT_MEASURED}" if self.basis is Basis.ESTIMATED else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """`arrivals` names a process, or a workload whose rhythm is taken; `gap` is the mean one in
    seconds, or follows from a load."""

    num_tasks: int
    gap: float | AtLoad
    arrivals: str = "poisson"
    mix: Path | None = None  # in place of the paper's models and grids
    seed: int = 0

    def write(self, out: Path) -> Generated:
        """Into a new file; raises UserError."""
        if out.suffix != _LOG:
            raise UserError(f"--out: value {str(out)!r}: expected a name that ends in {_LOG}")
        check_new_file(out)
        generated = self.generated()
        lines = (dump_entry(Entry(arrival, ())) + "\n" for arrival in generated.tasks)
        with out.open("x", encoding="utf-8") as file:
            file.writelines(lines)
        return generated

    def generated(self) -> Generated:
        """Raises UserError."""
        mix = PAPER_MIX if self.mix is None else read_mix(self.mix)
        arrivals = self._arrivals()
        if not isinstance(self.gap, AtLoad):
            tasks = generate(
                mix, arrivals, count=self.num_tasks, gap_seconds=self.gap, seed=self.seed
            )
            if not isfinite(tasks[-1].t):
                raise UserError(f"--gap: value {self.gap}: the last task would never arrive")
            return Generated(tasks)
        if self.gap.cluster is not None:
            nodes = Nodes(self.gap.cluster, self.gap.profile)
            if len(nodes.counts) > 1:
                return self._on_kinds(mix, arrivals, nodes, self.gap.share)
            ((kind, num_gpus),) = nodes.counts.items()
            machine = Machine(nodes.profiles[kind])
        else:
            num_gpus = self.gap.num_gpus
            machine = Machine(measured(self.gap.profile, self.gap.gpu))
        durations = TaskDurations(
            machine, machine.memory_model, start_seconds=DEFAULT_LATENCIES.load
        )
        tasks = arrivals_at_load(
            mix,
            arrivals,
            count=self.num_tasks,
            seed=self.seed,
            seconds=durations.seconds,
            num_gpus=num_gpus,
            load=self.gap.share,
        )
        return Generated(tasks, machine.basis(arrival.task for arrival in tasks))

    def _on_kinds(self, mix: TaskMix, arrivals: Arrivals, nodes: Nodes, share: float) -> Generated:
        """At a load of 1 the kinds together have no time to spare, however tasks are divided."""

        def tasks(gap: float) -> tuple[TaskArrived, ...]:
            return generate(mix, arrivals, count=self.num_tasks, gap_seconds=gap, seed=self.seed)

        log = RunLog(None, tuple(Entry(arrival, ()) for arrival in tasks(0.0)))
        on_nodes = placed(synthetic(log), nodes)
        assert on_nodes.workload.mixture is not None
        durations = KindDurations(
            on_nodes.workload.mixture,
            lambda costs: TaskDurations(
                costs, costs.memory_model, start_seconds=DEFAULT_LATENCIES.load
            ),
        )
        held = [arrival.task for arrival in on_nodes.workload.arrivals]
        if not any(task.kinds for task in held):
            raise UserError(f"{nodes.path}: no kind of its GPUs holds a task of the mix")
        seconds = drained_seconds(held, durations.seconds, nodes.counts)
        basis = Basis(dict(on_nodes.facts)[STEP_TIMES])
        return Generated(tasks(seconds / (self.num_tasks * share)), basis)

    def _arrivals(self) -> Arrivals:
        if self.arrivals == "poisson":
            return Poisson()
        if self.arrivals == "bursty":
            return Bursty()
        path = Path(self.arrivals)
        if not path.exists():
            raise UserError(
                f"--arrivals: value {self.arrivals!r}: expected poisson, bursty or the path of a "
                "workload whose rhythm is taken"
            )
        times = tuple(arrival.t for arrival in load_workload(path).workload.arrivals)
        try:
            return Recorded(times)
        except ValueError as error:
            raise UserError(f"{path}: all its tasks arrive at once, so it has no rhythm") from error


def read_mix(path: Path) -> TaskMix:
    """From a YAML file of `TaskMix`; what it does not say is the paper's. Raises UserError.

    models: [{ backbone: Qwen2.5-7B, num_gpus: 1, weight: 2,
               search: { learning_rates: [1e-5, 1e-4], ranks: [16], batch_sizes: [1, 8] } }]
    data: { median: 6000, spread: 0.8, least: 200, most: 50000 }
    lengths: { 512: 1, 1024: 2 }
    tenants: { research: 2, interns: 1 }
    epochs: 3
    """
    document = read_document(path)
    try:
        pairs = {name: _pairs(name, document[name]) for name in _WEIGHTED if name in document}
        return change_fields(PAPER_MIX, {**document, **pairs})
    except FieldError as error:
        raise UserError(f"{path}: {told(error, document)}") from error


def _pairs(name: str, weights: object) -> list[list[object]]:
    if not isinstance(weights, Mapping):
        raise FieldError((name,), "expected values with their weights, such as { 512: 1 }")
    return [[value, weight] for value, weight in weights.items()]
