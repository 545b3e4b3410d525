"""Every adapter of a run is judged, twenty at a time, by the answers that it gives."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_runs.result import Result
from experiments.grids.scores import ANSWERS
from experiments.recordings import answers
from experiments.recordings.answers import write_answers
from tests.tune.small_study import small_study
from tests.tune.test_preference_study import study_in


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


def test_adapters_are_judged_by_pairs_and_the_untuned_model_is_not(tmp_path: Path) -> None:
    result = tune(study_in(tmp_path), tmp_path / "run", console=Console(quiet=True))
    write_answers(result)
    lines = (tmp_path / "run" / ANSWERS).read_text().splitlines()
    untuned, best, *_ = [json.loads(line) for line in lines]
    assert set(untuned.values()) == {"preferences", None}, "it prefers nothing to itself"
    assert len(lines) == 1 + len(result.leaderboard) == 5
    assert best == {
        "task": "preferences",
        "job": result.leaderboard[0].job,
        "answers": None,
        "tokens": None,
        "preferred": 1.0,
    }
