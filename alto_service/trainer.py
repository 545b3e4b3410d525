"""The process that trains: one policy and one log for all studies."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from alto_exec.events.inbox import Cancellation, Request, Submission
from alto_exec.events.past import Past
from alto_exec.events.undecided import Perseverance
from alto_exec.host.machine import facts
from alto_exec.jobs.diary import collect_work
from alto_exec.jobs.sweeping import tidy
from alto_exec.site import RunToTrain, Site, Start, TaskFiles, ThisMachine, check_widths
from alto_policy.controller import Controller, run
from alto_policy.events import ExecutorUp
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import build
from alto_policy.runlog import Entry, Header, RunLog, dump_entry
from alto_policy.types import Task, TaskId
from alto_policy.view import Status
from alto_runs.errors import UserError
from alto_runs.files.directory import LogWriter, read_run_log
from alto_runs.files.publishing import Shelf
from alto_runs.outcomes.comparison import write_comparisons
from alto_runs.outcomes.history import follow
from alto_runs.replaying import catch_up
from alto_runs.result import write_result
from alto_runs.study import ExecutorSpec
from alto_service.admission import Admission
from alto_service.database import State
from alto_service.desk import Desk, StudyFile
from alto_service.folder import ServiceDirectory, number_of_task, study_id
from alto_service.handover import Handover, tasks_of
from alto_service.preparing import PreparedStudy, prepare_admitted, settle
from alto_service.settings import ServiceSettings

__all__ = ["train_at", "train_studies"]

_MOST_FAILURES = 3
_CHANGED = (
    "study: its files, or how this version of ALTO reads them, are not what they were when it was "
    "submitted"
)
_LOCK_SECONDS = 10.0  # that a trainer before this one may take to die


def train_studies(
    path: Path,
    settings: ServiceSettings,
    roots: tuple[Path, ...],
    *,
    has_failed: bool,
    cluster: str | None = None,
) -> None:
    """Train what comes, on this machine or on a Ray cluster; never returns.

    `has_failed`: the process before this one ended by an error of its own, so that what it trained
    is under suspicion.
    """
    with _site(cluster) as site:
        train_at(site, path, settings, roots, has_failed=has_failed)


def train_at(
    site: Site,
    path: Path,
    settings: ServiceSettings,
    roots: tuple[Path, ...],
    *,
    has_failed: bool,
) -> None:
    """As `train_studies`, where the site is known. Raises UndecidedError where the same decisions
    cannot be told again and again."""
    directory = ServiceDirectory(path, settings.stored_at())
    if has_failed and directory.run.log_path.exists():
        training = Past.of(read_run_log(directory.run.log_path).entries).executors
        _suspect(training, Handover(directory.store_path))
    perseverance = Perseverance()
    perseverance.go_on(lambda: _go_on(perseverance, site, directory, settings, roots))


def _go_on(
    perseverance: Perseverance,
    site: Site,
    directory: ServiceDirectory,
    settings: ServiceSettings,
    roots: tuple[Path, ...],
) -> None:
    """From where the log ends."""
    check_widths(settings.executor, settings.policy)
    handover = Handover(directory.store_path)
    admission = Admission.of(roots, settings.policy)
    with _log_writer(directory) as writer:
        spec = settle(directory, settings.executor, site)
        log = read_run_log(directory.run.log_path)
        gpus = site.gpus(spec)
        header = log.header or Header(
            policy=settings.policy, gpus=gpus, made_by=facts(spec, gpus, "of each study")
        )
        if log.header is None:
            writer.write_header(header)
        policy, ledger = build(header.policy), Cluster(header.gpus)
        catch_up(log, policy, ledger, directory.run.log_path)
        past = Past.of(log.entries)
        if log.header is not None:
            past = replace(past, move=site.move(spec, past, ledger))
        given = (("artifacts", settings.artifacts), ("publish", settings.publish))
        shelves = tuple(Shelf.at(url, field) for field, url in given if url is not None)
        place = _Place(admission, directory, site, spec, shelves)
        studies = _Studies(header, ledger, handover, place)
        studies.recall(log)
        files = TaskFiles(studies.start_of, directory.study_of_task, studies.fail)
        to_train = RunToTrain(
            spec=spec,
            inbox=studies,
            files=files,
            directory=directory.run,
            past=past,
            ledger=ledger,
        )
        with site.backend(to_train) as backend:

            def record(entry: Entry) -> None:
                backend.prepare(entry.decisions)
                writer.write_entry(entry)
                perseverance.heard(entry.decisions)
                studies.record(entry)

            run(Controller(policy, ledger, record), backend)


@contextmanager
def _site(cluster: str | None) -> Iterator[Site]:
    if cluster is None:
        yield ThisMachine()
        return
    from alto_exec.ray_cluster import connected

    with connected(cluster) as site:
        yield site


def _log_writer(directory: ServiceDirectory) -> LogWriter:
    """Raises UserError if another process holds the log for long."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return LogWriter(directory.run.log_path)
        except UserError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _suspect(tasks: Sequence[TaskId], handover: Handover) -> None:
    for number in dict.fromkeys(number_of_task(task) for task in tasks):
        if handover.attempt(number) >= _MOST_FAILURES:
            handover.fail(number, "training it has failed again and again; see the service's log")


@dataclass(frozen=True, slots=True)
class _Place:
    """What studies may name, where they train, and where their results go."""

    admission: Admission
    directory: ServiceDirectory
    site: Site
    spec: ExecutorSpec
    shelves: tuple[Shelf, ...]

    def placed(self, task: Task) -> Task:
        """On as many GPUs as each task has by now."""
        return replace(task, num_gpus=self.spec.gpus or 1, widths=self.spec.widths)

    def publish(self, number: int) -> str | None:
        """What kept the study's results from being published."""
        directory = self.directory.study(number)
        try:
            study = directory.study_path.read_text(encoding="utf-8")
            for shelf in (each.below(study_id(number)) for each in self.shelves):
                shelf.claim(study, study.__eq__)
                shelf.publish(directory)
        except UserError as error:
            return f"trained, but not published: {error}"
        return None


def _holds(now: Task, submitted: Task) -> bool:
    """Whether a task can be trained as it was submitted, though it is read otherwise by now: its
    jobs say all of themselves, and no sample is longer than its memory was counted for."""
    return now.backbone == submitted.backbone and now.max_length <= submitted.max_length


class _Studies:
    """The inbox of the backend, its executors, and what is left of a study when it ends."""

    def __init__(
        self,
        header: Header,
        cluster: Cluster,
        handover: Handover,
        place: _Place,
    ) -> None:
        self._header = header
        self._cluster = cluster
        self._handover = handover
        self._place = place
        self._directory = place.directory
        self._desk = Desk(cluster, header.gpus)
        self._num_entries = 0
        self._version = -1  # of the database, when it was last looked at
        self._prepared: dict[int, PreparedStudy] = {}
        self._cancelled: set[int] = set()  # the policy has been told

    def recall(self, log: RunLog) -> None:
        """Bring the database to where the log is: a kill may have come between the two."""
        last = self._handover.last_entry()
        lines, grown = [], dict[int, StudyFile]()
        for entry in log.entries:
            for study in self._desk.file(entry):
                grown[study.number] = study
                if self._num_entries > last:
                    lines.append(self._line(study))
            self._num_entries += 1
        self._handover.record(lines, [(n, s.progress(self._cluster)) for n, s in grown.items()])
        states = State.CHECKED, State.QUEUED, State.RUNNING
        open_studies = {row.number for row in self._handover.in_state(*states)}
        for number in open_studies:
            known = grown.get(number)  # the end of a log may be lost when the power fails
            is_up = known is not None and known.is_up
            state = State.RUNNING if is_up else State.QUEUED if known else State.CHECKED
            self._handover.move(number, state)
            self._directory.study(number).sweep()
        for study in self._desk.ended(self._num_tasks):
            if study.number in open_studies:
                self._finish(study)

    def record(self, entry: Entry) -> None:
        grown = list(self._desk.file(entry))
        lines = [self._line(study) for study in grown]
        self._num_entries += 1
        self._handover.record(lines, [(s.number, s.progress(self._cluster)) for s in grown])
        for study in grown:
            if len(study.entries) == 1:
                self._handover.move(study.number, State.QUEUED)
            if isinstance(entry.event, ExecutorUp) and study.entries[-1].event is entry.event:
                self._handover.move(study.number, State.RUNNING)

    def take(self) -> Sequence[Request]:
        for study in self._desk.ended(self._num_tasks):
            self._finish(study)
        version = self._handover.version()
        if version == self._version:
            return ()
        self._version = version
        return list(self._requests())

    def _requests(self) -> Iterator[Request]:
        for row in self._handover.in_state(State.CHECKED):
            missing = [t for t in tasks_of(row) if t.id not in self._cluster.tasks()]
            if row.cancelled and len(missing) == len(tasks_of(row)):
                self._handover.end(row.number, State.CANCELLED)
                continue
            for task in missing:
                yield Submission(self._place.placed(task))
        for number in self._handover.cancelled():
            if number not in self._cancelled:
                self._cancelled.add(number)
                for task in tasks_of(self._handover.study(number)):
                    yield Cancellation(task.id)

    def start_of(self, task: Task) -> Start | None:
        """None, and the reason with the study, where its files cannot be trained on any more."""
        number = number_of_task(task.id)
        try:
            study, prepared = self._read(number)
        except (UserError, OSError) as error:
            self.fail(task.id, str(error))
            return None
        this = prepared.get(task.id)
        this = this and this.on(task.num_gpus)
        if this is not None and self._has_not_begun(task) and _holds(this.task, task):
            this = replace(this, task=task)
        if this is None or this.task != task:
            self.fail(task.id, _CHANGED)
            return None
        directory = self._directory.study(number)
        this.tell_lengths(directory)
        directory.note_store()
        return Start(this, study.executor, directory)

    def _has_not_begun(self, task: Task) -> bool:
        return len(self._cluster.jobs(task.id, Status.QUEUED)) == len(task.jobs)

    def fail(self, task: TaskId, why: str) -> None:
        self._handover.fail(number_of_task(task), why)

    def _num_tasks(self, number: int) -> int:
        return len(tasks_of(self._handover.study(number)))

    def _read(self, number: int) -> PreparedStudy:
        if number not in self._prepared:
            row = self._handover.study(number)
            self._prepared[number] = prepare_admitted(
                row, self._place.admission, self._directory, self._place.spec
            )
        return self._prepared[number]

    def _finish(self, study: StudyFile) -> None:
        """Write what the study has come to; all of it once more if a kill comes first."""
        row = self._handover.study(study.number)
        directory = self._directory.study(study.number)
        header = replace(self._header, gpus=tuple(study.gpus.values()))
        history = follow(RunLog(header, tuple(study.entries)))
        collect_work(directory)
        result = write_result(directory, history)
        state, error = State.DONE, None
        if row.cancelled:
            state = State.CANCELLED if row.error is None else State.FAILED
        else:
            try:
                spec, prepared = self._read(study.number)
                write_comparisons(
                    directory.comparison_path,
                    self._place.site.compare(spec, list(prepared.values()), result),
                )
            except (UserError, OSError) as fault:
                state, error = State.FAILED, str(fault)
        self._prepared.pop(study.number, None)
        if state is State.DONE:
            error = self._place.publish(study.number)
        tidy(directory)
        self._handover.end(study.number, state, error)

    def _line(self, study: StudyFile) -> tuple[int, int, str]:
        return study.number, self._num_entries, dump_entry(study.entries[-1])
