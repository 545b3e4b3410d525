"""What an executor's process is told once, when it has been forked."""

from dataclasses import dataclass
from pathlib import Path

from alto_exec.backend import StartedExecutor
from alto_exec.ray_cluster.worker import Worker
from alto_exec.site import Start
from alto_runs.errors import UserError

__all__ = ["Duty"]


@dataclass(frozen=True, slots=True)
class Duty:
    """To train a task of the run in the folder `place`."""

    start: Start
    place: Path
    hold_seconds: float

    def begin(self) -> Worker:
        return Worker(self._executor, self.hold_seconds)

    def _executor(self) -> StartedExecutor:
        if not self.place.is_dir():
            raise UserError(
                f"{self.place}: is not seen from every node of the cluster, expected a folder on "
                "a disk that all share"
            )
        return self.start()
