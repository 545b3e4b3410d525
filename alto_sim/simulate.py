"""Runs a workload under a policy on the simulated clock."""

from collections.abc import Callable
from pathlib import Path

from alto_policy.controller import Controller, run
from alto_policy.dispatch import Dispatch, Placement
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import Settings, build
from alto_policy.runlog import Entry, Header
from alto_policy.types import Gpu
from alto_runs.files.directory import LogWriter, RunDirectory
from alto_runs.outcomes.history import Follower
from alto_runs.result import Result, write_result
from alto_sim.cluster.backend import SimBackend
from alto_sim.unended import SIMULATED, clear_unended
from alto_sim.workloads.workload import Workload

__all__ = ["play", "simulate"]

# Entries that are written and followed together: what the processor keeps at hand is the code of
# the simulation, then that of the log. A simulation that is interrupted is begun anew.
_BATCH = 500


def simulate(
    workload: Workload,
    settings: Settings,
    gpus: tuple[Gpu, ...],
    out: Path,
    *,
    place: Placement | None = None,
    estimate: DurationEstimate = declared_seconds,
    made_by: tuple[tuple[str, str], ...] = (),
) -> Result:
    """Write a run directory as a real run would, but for adapters; raises UserError.

    A placement is asked when all tasks of a moment have arrived.
    """
    clear_unended(out)
    directory = RunDirectory.create(out)
    facts = (SIMULATED, *made_by)
    cluster = Cluster(gpus)
    follower = Follower(cluster)
    entries: list[Entry] = []
    with LogWriter(directory.log_path) as writer:

        def record(entry: Entry) -> None:
            entries.append(entry)
            if len(entries) == _BATCH:
                keep()

        def keep() -> None:
            batch = entries.copy()
            entries.clear()  # first: nothing is written twice if the disk is full
            writer.write_entries(batch)
            for entry in batch:
                follower.observe(entry)

        writer.write_header(Header(policy=settings, gpus=gpus, made_by=facts))
        policy = build(settings, place, estimate)
        if isinstance(policy, Dispatch) and policy.is_placed:
            policy.hears_all = True
        try:
            run(Controller(policy, cluster, record), SimBackend(workload, gpus))
        finally:
            keep()
    return write_result(directory, follower.history())


def play(
    workload: Workload,
    settings: Settings,
    gpus: tuple[Gpu, ...],
    record: Callable[[Entry], None],
    place: Placement | None = None,
    estimate: DurationEstimate = declared_seconds,
) -> None:
    """Hand every entry of the simulated run to `record`."""
    backend = SimBackend(workload, gpus)
    run(Controller(build(settings, place, estimate), Cluster(gpus), record), backend)
