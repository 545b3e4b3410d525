"""What the service is told and what it answers, as JSON."""

import json
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from alto_runs.files.directory import is_plain_name
from alto_service.database import State, StudyRow
from alto_service.folder import study_id

__all__ = [
    "LONGEST_DOCUMENT",
    "BestJob",
    "Failure",
    "Health",
    "LogPage",
    "StudyList",
    "StudyStatus",
    "SubmissionBody",
]

LONGEST_DOCUMENT = 1_000_000  # characters


def _tenant(value: str) -> str:
    if value and not is_plain_name(value):
        raise ValueError("expected letters, digits, '.', '_' and '-'")
    return value


class SubmissionBody(BaseModel):
    """A study file's text; its relative paths are seen from `folder`, on the server."""

    model_config = ConfigDict(extra="forbid")

    study: Annotated[str, Field(max_length=LONGEST_DOCUMENT)]
    folder: Annotated[str, Field(max_length=4096)] | None = None
    tenant: Annotated[str, AfterValidator(_tenant)] | None = None
    priority: Annotated[int, Field(strict=True, ge=-100, le=100)] = 0


class BestJob(BaseModel):
    """The job of the least validation loss so far."""

    job: str
    val_loss: float


class StudyStatus(BaseModel):
    """`jobs` counts them by status; `directory` is a path on the server."""

    id: str
    name: str
    tenant: str
    priority: int
    state: State
    error: str | None
    submitted_at: datetime
    ended_at: datetime | None
    jobs: dict[str, int]
    best: BestJob | None
    directory: str

    @classmethod
    def of(cls, row: StudyRow, directory: str) -> "StudyStatus":
        return cls(
            id=study_id(row.number),
            name=row.name,
            tenant=row.tenant,
            priority=row.priority,
            state=row.state,
            error=row.error,
            submitted_at=datetime.fromtimestamp(row.submitted_at, UTC),
            ended_at=None if row.ended_at is None else datetime.fromtimestamp(row.ended_at, UTC),
            directory=directory,
            **json.loads(row.progress),
        )


class StudyList(BaseModel):
    """`after` asks for the studies that follow, where there are more."""

    studies: list[StudyStatus]
    after: int | None


class LogPage(BaseModel):
    """Entries of the run log that concern the study; `after` asks for those that follow."""

    entries: list[dict[str, object]]
    after: int


class Health(BaseModel):
    status: str
    trainer: bool
    checker: bool


class Failure(BaseModel):
    """One line that tells what was wrong."""

    error: str
