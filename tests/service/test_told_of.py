"""Of whose data a service's own output tells."""

from pathlib import Path

import pytest

from alto_runs.study import ExecutorSpec
from alto_service.preparing import prepare_submitted
from tests.service.cases import STUDY, client_of, front, write_data

TASKS = "tasks: {one: {}, two: {budget: {samples: 8}}}\n"


@pytest.mark.parametrize(
    ("more", "whose"),
    [("", ["s1: data: "]), (TASKS, ["s1: tasks.one: data: ", "s1: tasks.two: data: "])],
    ids=["one task", "several"],
)
def test_a_warning_names_the_study_and_the_task(
    more: str, whose: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = front(tmp_path / "service", write_data(tmp_path / "root"))
    client_of(service).post("/studies", json={"study": STUDY.format(name="small") + more})
    row = service.store.study(1)
    assert row is not None
    executor = ExecutorSpec(device="cpu", threads=1)
    prepare_submitted(row, service.admission, service.directory, executor)
    told = [each for each in caplog.messages if "stand in both" in each]
    assert [each.partition("data: ")[0] + "data: " for each in told] == whose
