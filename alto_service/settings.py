"""What the operator of a service chooses for all studies."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from alto_policy.policies.alto import AltoSettings
from alto_runs.errors import UserError
from alto_runs.files.artifacts import StoredArtifact
from alto_runs.study import ExecutorSpec, PolicySettings
from alto_runs.study_fields.document import read_document
from alto_runs.study_fields.faults import first_fault

__all__ = ["ServiceSettings", "load_settings"]


class ServiceSettings(BaseModel):
    """One policy decides on all studies; `executor` holds where a study leaves a choice open.

    Below `publish`, a URL of fsspec's, each study has a folder for its results; below `artifacts`
    one for what its jobs write as well, which else is in the folder of the service.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: PolicySettings = AltoSettings()
    executor: ExecutorSpec = ExecutorSpec()
    publish: str | None = None
    artifacts: str | None = None

    def stored_at(self) -> str | None:
        """Raises UserError."""
        if self.artifacts is None:
            return None
        return StoredArtifact.at(self.artifacts, "artifacts").url


def load_settings(path: Path) -> ServiceSettings:
    """Raises UserError with the field at fault."""
    document = read_document(path)
    try:
        return ServiceSettings.model_validate(document)
    except ValidationError as error:
        fault = first_fault(error, document, ServiceSettings, ServiceSettings)
        raise UserError(f"{path}: {fault}") from error
