"""The same workload under several seeds, in parallel processes."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alto_policy.policies import Settings
from alto_policy.types import Gpu
from alto_runs.costs.step_profile import StepProfile
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory, seed_folder
from alto_runs.garbage import uncollected
from alto_runs.own_policy import blaming, check_loaded, own_policy, source_of
from alto_runs.replaying import BELIEF
from alto_runs.result import Result
from alto_runs.versions import versions
from alto_sim.conditions.belief import Belief, BelievedCosts
from alto_sim.conditions.file import AS_IT_IS, Conditions, Rows, believed, read_conditions
from alto_sim.conditions.molding import molded
from alto_sim.curves.losses import RecordedCurves
from alto_sim.importers import is_cluster_trace
from alto_sim.machines.carried import measured
from alto_sim.machines.hardware import GPUS_PER_NODE, gpus_of
from alto_sim.machines.nodes import Nodes
from alto_sim.simulate import simulate
from alto_sim.unended import clear_unended
from alto_sim.workloads.generator import PAPER_MIX
from alto_sim.workloads.loading import Loaded, load_workload
from alto_sim.workloads.placed import Facts

__all__ = ["Simulation"]

log = logging.getLogger(__name__)


def _begin(own: tuple[Path, str] | None) -> None:
    """What is to be warned of was told when it was loaded in the first process."""
    logging.disable(logging.WARNING)
    if own is not None:
        own_policy(*own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A workload by its path; `policy` in place of its own.

    A `profile`, which is a file, and a `gpu` by name stand for the machine; to another GPU than
    the measured one times are carried over by data sheets. A `cluster` is a file of `Nodes`, in
    place of `num_gpus` and `gpu`. `conditions` is a file of `Conditions`,
    `curves` losses of another source, a folder or a table.
    """

    path: Path
    num_gpus: int = 1
    cluster: Path | None = None
    policy: Settings | None = None
    profile: Path | None = None
    gpu: str | None = None
    conditions: Path | None = None
    curves: Path | None = None

    def run(self, out: Path) -> Result:
        """Raises UserError."""
        with uncollected():
            return self._play(self._load(), self._conditions(), out)

    def run_seeds(self, count: int, out: Path) -> Iterator[Result]:
        """Runs in `out`/seed-0 and so on, as they end; raises UserError where no seed matters."""
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from multiprocessing import get_context

        if not (self._load().is_drawn or self._conditions().is_drawn):
            raise UserError("--seeds: nothing is drawn in this workload, every seed gives the same")
        folders = [seed_folder(out, seed) for seed in range(count)]
        for folder in filter(Path.is_dir, folders):
            clear_unended(folder)
            with suppress(OSError):  # where anything else is there
                folder.rmdir()
        RunDirectory.create(out)
        workers = min(count, os.cpu_count() or 1)
        with ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=_begin,
            initargs=(source_of(self.policy),),
        ) as pool:
            waiting = [pool.submit(self._run_seed, *each) for each in enumerate(folders)]
            try:
                for done in as_completed(waiting):
                    yield Result(done.result())
            finally:
                pool.shutdown(cancel_futures=True)

    def _run_seed(self, seed: int, out: Path) -> Path:
        with uncollected():
            self._play(self._load(seed), self._conditions().seeded(seed), out)
        return out

    def _load(self, seed: int = 0) -> Loaded:
        conditions = self._conditions()
        mix = PAPER_MIX if conditions.rows is Rows.TUNING else None
        if mix is not None and not is_cluster_trace(self.path):
            raise UserError(
                f"{self.conditions}: rows: value 'tuning': expected a trace of a cluster's jobs, "
                f"and the tasks of {self.path} are what they are"
            )
        if self.curves is not None and conditions.losses is not None:
            raise UserError(f"{self.conditions}: losses: expected none beside --losses")
        return load_workload(
            self.path,
            seed=seed,
            machine=self._machine(),
            mix=mix,
            curves=self.curves,
            shape=conditions.losses,
        )

    def _machine(self) -> StepProfile | Nodes | None:
        if self.cluster is not None:
            return Nodes(self.cluster, self.profile)
        if self.profile is None and self.gpu is None:
            return None
        return measured(self.profile, self.gpu)

    def _gpus(self, kind: str, conditions: Conditions) -> tuple[Gpu, ...]:
        """Raises UserError for conditions that this cluster does not take."""
        per_node = conditions.gpus_per_node
        if self.cluster is None:
            return gpus_of(self.num_gpus, gpus_per_node=per_node or GPUS_PER_NODE, kind=kind)
        if per_node is not None:
            what = "gpus_per_node: expected none, the cluster's file says it"
            raise UserError(f"{self.conditions}: {what}")
        return Nodes(self.cluster).gpus

    def _nodes(self) -> Facts:
        return () if self.cluster is None else (("cluster", Nodes(self.cluster).told),)

    def _conditions(self) -> Conditions:
        return AS_IT_IS if self.conditions is None else read_conditions(self.conditions)

    def _play(self, loaded: Loaded, conditions: Conditions, out: Path) -> Result:
        workload = conditions.around(loaded.workload)
        gpus = self._gpus(loaded.gpu, conditions)
        folder = Path() if self.conditions is None else self.conditions.parent
        costs = BelievedCosts(conditions.belief or Belief(), workload, folder)
        if conditions.placement is not None and conditions.placement.widths:
            counts = Counter([gpu.kind for gpu in gpus])
            workload = molded(workload, conditions.placement.widths, counts, costs)
        workload = costs.told(workload)
        estimate, place = believed(conditions, workload, costs)
        told: Facts = (("latencies, s", workload.latencies.told), *conditions.told)
        if not conditions.is_plain:
            told = (*told, (BELIEF, f"the conditions of {self.conditions}"))
        settings = self.policy or loaded.settings
        check_loaded(settings, self.path)
        with blaming(settings):
            result = simulate(
                workload,
                settings,
                gpus,
                out,
                place=place,
                estimate=estimate,
                made_by=(*versions("simpy").items(), *self._nodes(), *loaded.facts, *told),
            )
        curves = loaded.workload.curves
        if self.curves is None and isinstance(curves, RecordedCurves) and curves.num_held:
            log.warning(
                "%s: %d losses are needed that were never recorded, of jobs that were stopped; the "
                "last loss of its job stands for each",
                self.path,
                curves.num_held,
            )
        return result
