"""A stopped executor's backbone does not outlive the next one's coming."""

import gc
import weakref
from pathlib import Path

from alto_exec.host.machine import settle
from alto_exec.preparation import prepare
from alto_runs.files.directory import RunDirectory
from tests.tune.small_study import small_study


def test_collections_pass_over_a_backbone_until_the_next_is_loaded(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    spec = settle(study.executor)
    (task,) = prepare(study)
    try:
        executor, _ = task.start(spec, RunDirectory.create(tmp_path / "run"))
        assert gc.get_freeze_count() > 0
        backbone = executor.backbone
        backbone.in_a_cycle = backbone  # type: ignore[attr-defined]
        gone = weakref.ref(backbone)
        executor.keeper.close()
        del backbone, executor
        task.load(spec)
        assert gone() is None
        assert gc.get_freeze_count() == 0
    finally:
        gc.unfreeze()
