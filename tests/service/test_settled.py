"""What a service trains with, from its first start on."""

from pathlib import Path

import pytest

from alto_exec.site import ThisMachine
from alto_runs.errors import UserError
from alto_runs.study import ExecutorSpec
from alto_service.folder import ServiceDirectory
from alto_service.preparing import settle, settled_before


def test_only_the_room_may_be_another(tmp_path: Path) -> None:
    directory = ServiceDirectory(tmp_path)
    begun = settle(directory, ExecutorSpec(device="cpu", threads=1, max_jobs=5), ThisMachine())
    assert (begun.dtype, begun.gpus, begun.max_jobs) == ("float32", 1, 5)
    again = settle(directory, ExecutorSpec(memory_gb=3), ThisMachine())
    assert again == begun.model_copy(update={"max_jobs": None, "memory_gb": 3})
    with pytest.raises(UserError, match=r"the service was begun with executor\.threads 1, not 2"):
        settle(directory, ExecutorSpec(threads=2), ThisMachine())
    with pytest.raises(UserError, match=r"executor\.gpus: value 2: a task has one GPU here"):
        settle(directory, ExecutorSpec(gpus=2), ThisMachine())
    assert settled_before(directory, ExecutorSpec(gpus=2)).gpus == 2
