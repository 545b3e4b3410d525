"""A service whose machine is a Ray cluster of its own."""

from pathlib import Path

import psutil
import pytest

from alto_runs.replaying import replay_run
from alto_service.folder import ServiceDirectory
from tests.cluster.test_local import left_in, line_of, named
from tests.ports import free_port
from tests.service.cases import STUDY, assert_same_board, tuned_alone, write_data
from tests.service.test_killed_service import ask, awaited, served


def own_nodes(folder: Path) -> list[psutil.Process]:
    """Those whose child Ray is, each a child of whoever trains."""
    found = [process for process in named(folder) if "own_node.py" in line_of(process)]
    return [process for process in found if process.parent() not in found]


LONG = STUDY.format(name="small").replace("samples: 16", "samples: 48")


def test_who_trains_is_killed_and_then_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executors are forked from what trains. Its cluster ends with it, and the next makes another;
    in the end nothing is left."""
    monkeypatch.setenv("ALTO_TEST", str(tmp_path))
    root, out, port = write_data(tmp_path / "root"), tmp_path / "service", free_port()
    url = f"http://127.0.0.1:{port}/studies"
    with served(out, root, port, "--cluster", "local"):
        ask(url, {"study": LONG})
        awaited(lambda: "LossReported" in str(ask(f"{url}/s1/log")))
        assert not [each for each in named(tmp_path) if "zygote" in line_of(each)]
        (first,) = own_nodes(tmp_path)
        trainer = first.parent()
        assert trainer is not None
        trainer.kill()
        awaited(lambda: ask(f"{url}/s1")["state"] == "done")
        awaited(lambda: len(found := own_nodes(tmp_path)) == 1 and first not in found)
    assert left_in(tmp_path) == []
    study = ServiceDirectory(out).study(1)
    assert_same_board(study, tuned_alone(root, tmp_path / "alone", LONG).leaderboard)
    assert replay_run(out)[1] is None
