"""Every adapter of a run is judged, twenty at a time, by the answers that it gives."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_runs.result import Result
from experiments import answers
from experiments.answers import write_answers
from experiments.scores import ANSWERS
from tests.tune.small_study import small_study


def test_the_untuned_model_and_all_adapters_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(tmp_path)
    (spec,) = study.tasks.values()
    few = spec.model_copy(update={"search": None, "jobs": spec.configurations[4:9]})
    run = tmp_path / "run"
    tune(study.model_copy(update={"tasks": {"few": few}}), run, console=Console(quiet=True))
    result, found = Result(run), []
    for at_once in (20, 2):
        monkeypatch.setattr(answers, "_AT_ONCE", at_once)
        write_answers(result)
        found.append([json.loads(line) for line in (run / ANSWERS).read_text().splitlines()])
    untuned, *tuned = found[0]
    assert found[1] == found[0]
    assert untuned["job"] is None
    with_adapter = [one for one in result.leaderboard if one.adapter is not None]
    assert [row["job"] for row in tuned] == [one.job for one in with_adapter]
    assert len(tuned) == 5
    assert tuned[0]["tokens"] > max(untuned["tokens"], tuned[-1]["tokens"])
    assert {row["preferred"] for row in found[0]} == {None}
