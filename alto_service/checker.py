"""The process that reads what studies name, before any of them reaches the policy.

It stands between the HTTP side, which answers at once, and training, which must not wait for
files; and a file that kills its reader kills neither of the two.
"""

import time
from pathlib import Path

from alto_runs.errors import UserError
from alto_runs.study import ExecutorSpec
from alto_service.admission import Admission
from alto_service.database import State, StudyRow
from alto_service.folder import ServiceDirectory
from alto_service.handover import Handover
from alto_service.preparing import prepare_submitted, settled_before
from alto_service.settings import ServiceSettings

__all__ = ["check_submissions"]

_IDLE_SECONDS = 0.05
_MOST_ATTEMPTS = 10


def check_submissions(path: Path, settings: ServiceSettings, roots: tuple[Path, ...]) -> None:
    """Check one study after another, as they come; never returns."""
    directory = ServiceDirectory(path)
    handover = Handover(directory.store_path)
    admission = Admission.of(roots, settings.policy)
    while not directory.executor_path.exists():  # the trainer knows the device
        time.sleep(_IDLE_SECONDS)
    executor = settled_before(directory, settings.executor)
    while True:
        submitted = handover.in_state(State.SUBMITTED)
        for row in submitted:
            _check(row, handover, admission, directory, executor)
        if not submitted:
            time.sleep(_IDLE_SECONDS)


def _check(
    row: StudyRow,
    handover: Handover,
    admission: Admission,
    directory: ServiceDirectory,
    executor: ExecutorSpec,
) -> None:
    if handover.study(row.number).cancelled:
        handover.end(row.number, State.CANCELLED)
        return
    if handover.attempt(row.number) > _MOST_ATTEMPTS:
        handover.end(row.number, State.REFUSED, "whoever reads the files of this study dies of it")
        return
    try:
        _, prepared = prepare_submitted(row, admission, directory, executor)
    except (UserError, OSError) as error:
        handover.end(row.number, State.REFUSED, str(error))
        return
    handover.admit(row.number, [one.task for one in prepared.values()])
