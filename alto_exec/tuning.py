"""From a study to a finished run directory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from alto_exec.events.inbox import GivenTasks
from alto_exec.events.past import Past
from alto_exec.events.undecided import Perseverance, UndecidedError
from alto_exec.host.machine import facts
from alto_exec.jobs.claims import claim_folder
from alto_exec.jobs.diary import collect_work
from alto_exec.jobs.sweeping import sweep_checkpoints, tidy
from alto_exec.parallel.ranks import num_launched_ranks
from alto_exec.preparation import PreparedTask, prepare
from alto_exec.progress import Progress
from alto_exec.site import RunToTrain, Site, Start, TaskFiles, ThisMachine, check_widths
from alto_policy.controller import Controller, run
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import build
from alto_policy.runlog import Entry, Header
from alto_policy.types import Task, TaskId
from alto_runs.errors import UserError
from alto_runs.files.artifacts import StoredArtifact
from alto_runs.files.directory import LogWriter, RunDirectory, read_run_log, write_atomically
from alto_runs.files.mirror import mirrored, recover
from alto_runs.files.publishing import Shelf
from alto_runs.going_on import elsewhere, first_difference, is_of_run
from alto_runs.outcomes.comparison import write_comparisons
from alto_runs.replaying import catch_up
from alto_runs.result import Result, write_result
from alto_runs.study import Given, Study, as_study, load_study, resolved_yaml

__all__ = ["Options", "tune", "tune_at"]

_ARTIFACTS = "--artifacts"


def tune(
    study: Given,
    out: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    cluster: str | None = None,
    publish: str | None = None,
    artifacts: str | None = None,
) -> Result:
    """Train the tasks of a study, of a study file, or of the fields that one would have, into the
    folder `out`.

    With `resume` a run that was cut short goes on; one that had not begun yet begins. Progress
    goes to `console`, or to stderr. Trains on the device of this machine; or on the Ray cluster at
    the address `cluster`, where `local` makes one of all devices of this machine. Where torchrun
    has launched several processes, they train together. Results are copied to the fsspec URL
    `publish` when they are final. What jobs write lives at the fsspec URL `artifacts`, and with it
    the results and a copy of the log, from which a run goes on whose folder is lost; or else in
    `out`, which all nodes then share. Raises UserError.
    """
    options = Options(resume=resume, console=console, publish=publish, artifacts=artifacts)
    if cluster is None and num_launched_ranks() > 1:
        return _tune_together(study, out, options)
    if cluster is None:
        return tune_at(ThisMachine(), study, out, options)
    from alto_exec.ray_cluster import connected

    with connected(cluster) as site:
        return tune_at(site, study, out, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of `tune`."""

    resume: bool = False
    console: Console | None = None
    publish: str | None = None
    artifacts: str | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """What is trained, into which folder, and where."""

    study: Study
    prepared: Sequence[PreparedTask]
    directory: RunDirectory
    site: Site


def _tune_together(study: Given, out: str | Path, options: Options) -> Result:
    from alto_exec.team.launched import joined

    study = as_study(study)
    with joined(study) as site:
        if site is not None:
            return tune_at(site, study, out, options)
    return Result(Path(out))


def tune_at(site: Site, study: Given, out: str | Path, options: Options) -> Result:
    """As `tune`, where the site is known."""
    study = as_study(study)
    shelves = [] if options.publish is None else [Shelf.at(options.publish, "--publish")]
    check_widths(study.executor, study.policy)
    directory = _opened(Path(out), options)
    if directory.stored_at is not None:
        shelves.append(Shelf.at(directory.stored_at, _ARTIFACTS))
        if options.resume and recover(directory, shelves[-1]):
            claim_folder(directory)
    study = _settled(study, directory, site)
    prepared = prepare(study)
    text = resolved_yaml(study)
    for shelf in shelves:
        shelf.claim(text, lambda there: options.resume and is_of_run(there, study))
    write_atomically(directory.study_path, text)
    with mirrored(directory):
        _train(_Run(study, prepared, directory, site), options.console or Console(stderr=True))
    collect_work(directory)
    result = write_result(directory)
    tidy(directory)
    if not directory.comparison_path.exists():
        write_comparisons(directory.comparison_path, site.compare(study, prepared, result))
    for shelf in shelves:
        shelf.publish(directory)
    return result


def _opened(path: Path, options: Options) -> RunDirectory:
    given = options.artifacts
    stored_at = None if given is None else StoredArtifact.at(given, _ARTIFACTS).url
    begin = RunDirectory.reopen if options.resume else RunDirectory.create
    return begin(path, stored_at)


def _settled(study: Study, directory: RunDirectory, site: Site) -> Study:
    """The study with every choice made: that of the run where it has begun."""
    if not directory.study_path.is_file():
        return study.model_copy(update={"executor": site.settle(study.executor)})
    begun = load_study(directory.study_path)
    if difference := first_difference(study, begun):
        raise UserError(f"{directory.study_path}: the run was begun with {difference}")
    return begun.model_copy(
        update={"executor": site.settle(elsewhere(begun.executor, study.executor))}
    )


def _train(begun: _Run, console: Console) -> None:
    directory = begun.directory
    by_id = {one.task.id: one for one in begun.prepared}

    def start_of(task: Task) -> Start:
        one = by_id[task.id].on(task.num_gpus)
        one.tell_lengths(directory)
        return Start(one, begun.study.executor, directory.absolute())

    files = TaskFiles(start_of, lambda _: directory, _refuse)
    perseverance = Perseverance()
    try:
        perseverance.go_on(lambda: _go_on(begun, files, perseverance, console))
    except UndecidedError as error:
        raise UserError(f"{error}, again and again as its jobs were to stop") from error


def _go_on(begun: _Run, files: TaskFiles, perseverance: Perseverance, console: Console) -> None:
    """From where the log ends."""
    study, directory, site = begun.study, begun.directory, begun.site
    policy = build(study.policy)
    with LogWriter(directory.log_path) as writer:
        directory.sweep()
        found = read_run_log(directory.log_path)
        header = found.header or _header(begun)
        if found.header is None:
            writer.write_header(header)
        ledger = Cluster(header.gpus)
        catch_up(found, policy, ledger, directory.log_path)
        sweep_checkpoints(ledger, directory)
        past = Past.of(found.entries)
        if found.header is not None:
            past = replace(past, move=site.move(study.executor, past, ledger))
        arrived = {task.id for task in past.tasks}
        coming = GivenTasks(one.task for one in begun.prepared if one.task.id not in arrived)
        to_train = RunToTrain(
            spec=study.executor,
            inbox=coming,
            files=files,
            directory=directory,
            past=past,
            ledger=ledger,
        )
        with (
            site.backend(to_train) as backend,
            Progress(console, ledger, lambda: backend.tokens_trained) as progress,
        ):

            def record(entry: Entry) -> None:
                backend.prepare(entry.decisions)
                writer.write_entry(entry)
                perseverance.heard(entry.decisions)
                progress.show(entry)

            run(Controller(policy, ledger, record), backend)


def _refuse(task: TaskId, why: str) -> None:
    """The run ends with any task of it."""
    raise UserError(why)


def _header(begun: _Run) -> Header:
    spec = begun.study.executor
    gpus = begun.site.gpus(spec)
    ways = dict.fromkeys(one.kernels(spec) for one in begun.prepared)  # each of them told once
    made_by = facts(spec, gpus, "; ".join(ways))
    return Header(policy=begun.study.policy, gpus=gpus, made_by=made_by)
