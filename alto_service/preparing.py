"""A study of the service, with its files read and its tasks named as the service names them."""

from collections.abc import Mapping
from dataclasses import replace

from alto_exec.preparation import PreparedTask, prepare
from alto_exec.site import Site
from alto_policy.types import JobId, Task, TaskId
from alto_runs.errors import UserError
from alto_runs.files.directory import write_atomically
from alto_runs.going_on import choices, elsewhere, executor_difference
from alto_runs.study import ExecutorSpec, Study, load_study, resolved_yaml
from alto_runs.study_fields.document import dump_document, read_document
from alto_service.admission import Admission
from alto_service.database import StudyRow
from alto_service.folder import ServiceDirectory, study_id

__all__ = [
    "PreparedStudy",
    "prepare_admitted",
    "prepare_submitted",
    "settle",
    "settled_before",
]

PreparedStudy = tuple[Study, Mapping[TaskId, PreparedTask]]


def prepare_submitted(
    row: StudyRow, admission: Admission, directory: ServiceDirectory, executor: ExecutorSpec
) -> PreparedStudy:
    """Read all files of the study, and write down every choice that was made for it.

    Raises UserError and OSError.
    """
    study = admission.study(row.document, row.folder)
    settled = _settled(study.executor, executor)
    study = study.model_copy(update={"executor": settled, "policy": admission.policy})
    prepared = _prepared(row, study)
    write_atomically(directory.study(row.number).study_path, resolved_yaml(study))
    return study, prepared


def settle(directory: ServiceDirectory, spec: ExecutorSpec, site: Site) -> ExecutorSpec:
    """What the settings leave open is chosen the first time, and the same ever after; how much room
    there is may be another each time. Raises UserError."""
    path = directory.executor_path
    if not path.exists():
        write_atomically(path, dump_document(site.settle(spec).model_dump()))
    settled = settled_before(directory, spec)
    if difference := executor_difference(spec, settled):
        raise UserError(f"{path}: the service was begun with {difference}")
    return site.settle(settled)


def settled_before(directory: ServiceDirectory, spec: ExecutorSpec) -> ExecutorSpec:
    """As it was settled, with as much room as the settings tell now."""
    begun = ExecutorSpec.model_validate(read_document(directory.executor_path))
    return elsewhere(begun, spec.model_copy(update={"gpus": spec.gpus or 1}))


def _settled(spec: ExecutorSpec, of_service: ExecutorSpec) -> ExecutorSpec:
    """The study's own choices before those of the service. Raises UserError."""
    if spec.device not in ("auto", of_service.device):
        raise UserError(
            f"study: executor.device: value {spec.device!r}: this service trains on "
            f"{of_service.device}"
        )
    if spec.gpus not in (None, of_service.gpus):
        raise UserError(
            f"study: executor.gpus: value {spec.gpus}: this service trains each task on "
            f"{of_service.gpus}"
        )
    if spec.max_gpus not in (None, of_service.max_gpus):
        raise UserError(
            f"study: executor.max_gpus: value {spec.max_gpus}: this service has "
            f"{of_service.max_gpus}"
        )
    return of_service.model_copy(update=choices(spec))


def prepare_admitted(
    row: StudyRow, admission: Admission, directory: ServiceDirectory, executor: ExecutorSpec
) -> PreparedStudy:
    """The same once more, from what was written down, on as many GPUs as the service trains each
    task on by now. Raises UserError and OSError."""
    study = load_study(directory.study(row.number).study_path)
    admission.check(study)
    room = {"gpus": executor.gpus, "max_gpus": executor.max_gpus}
    moved = study.executor.model_copy(update=room)
    study = study.model_copy(update={"executor": moved})
    return study, _prepared(row, study)


def _prepared(row: StudyRow, study: Study) -> Mapping[TaskId, PreparedTask]:
    found = prepare(study, whose=f"{study_id(row.number)}: ")
    prepared = (replace(one, task=_renamed(one.task, row)) for one in found)
    return {one.task.id: one for one in prepared}


def _renamed(task: Task, row: StudyRow) -> Task:
    """Names that no other study has: those of the task, after that of the study."""
    prefix = study_id(row.number)
    return replace(
        task,
        id=TaskId(f"{prefix}.{task.id}"),
        jobs=tuple(replace(job, id=JobId(f"{prefix}.{job.id}")) for job in task.jobs),
        tenant=row.tenant,
        priority=row.priority,
    )
