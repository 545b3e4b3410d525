"""Tasks with backbones of their own take turns on one GPU."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from alto_policy.events import ExecutorUp
from alto_runs.outcomes.history import Outcome
from alto_runs.profile import shipped_profile
from alto_runs.result import Result
from alto_runs.summary import print_summary, stdout_console
from alto_sim.seeds import Simulation

STUDY = Path("examples/backbones/study.yaml")


def facts(run: Result) -> dict[str, str]:
    assert run.log.header is not None
    return dict(run.log.header.made_by)


def test_each_backbone_has_the_gpu_for_itself_with_its_own_memory_and_times(
    tmp_path: Path,
) -> None:
    result = Simulation(path=STUDY, num_gpus=1).run(tmp_path / "run")
    history = result.history
    assert [task.backbone for task in history.tasks] == [
        "Llama-3.1-8B",
        "Llama-3.2-1B",
        "SmolLM2-135M",
    ]
    spans = history.executors
    assert [span.task for span in spans] == ["middle", "small", "tiny"]
    assert all(later.start - earlier.end == 30 for earlier, later in pairwise(spans))  # loading
    held = [
        up.memory.fixed for entry in result.log.entries if isinstance(up := entry.event, ExecutorUp)
    ]
    assert held == sorted(held, reverse=True)
    assert len(set(held)) == 3
    trained = {task.id: sum(job.samples for job in history.of_task(task)) for task in history.tasks}
    pace = [trained[span.task] / (span.end - span.start) for span in spans]
    assert min(pace) == pace[0]  # the smaller ones wait for launches, each at its own pace
    assert len(set(pace)) == 3
    ends = {Outcome.FINISHED, Outcome.STOPPED, Outcome.FAILED}
    assert all(job.outcome in ends for job in history.jobs.values())


def of_long_samples(folder: Path) -> Path:
    """The study with samples that keep a card busy."""
    data = folder / "long.jsonl"
    data.write_text((json.dumps({"text": "a" * 5_000}) + "\n") * 1_000)
    text = STUDY.read_text().replace("data: {", "data: { validation_limit: 16,")
    for name in ("train", "validation"):
        text = text.replace(f"../demo/data/{name}.jsonl", str(data))
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def told(run: Result, capsys: pytest.CaptureFixture[str]) -> str:
    print_summary(run, stdout_console())
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("gigabytes", "who"), [(40, None), (8, "middle: nothing"), (2, "2 of 3 tasks: nothing")]
)
def test_who_has_no_room_at_all_is_told(
    gigabytes: int, who: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = of_long_samples(tmp_path)
    study.write_text(f"{study.read_text()}executor: {{ memory_gb: {gigabytes} }}\n")
    summary = told(Simulation(path=study, num_gpus=1).run(tmp_path / "run"), capsys)
    assert (f"{who} was trained" in summary) if who else ("nothing was trained" not in summary)


def kinds(run: Result) -> set[str]:
    assert run.log.header is not None
    return {gpu.kind for gpu in run.log.header.gpus}


def test_another_card_is_slower_and_labelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study, and a run that was recorded: its losses stay what they were."""
    study = of_long_samples(tmp_path)
    own, other = (
        Simulation(path=study, num_gpus=1, gpu=gpu).run(tmp_path / str(gpu))
        for gpu in (None, "A100")
    )
    assert facts(own)["step_times"] == "modelled"
    assert facts(other)["step_times"] == "estimated"
    assert (kinds(own), kinds(other)) == ({"NVIDIA H100 80GB HBM3"}, {"A100"})
    assert "times are estimated" not in told(own, capsys)
    assert "times are estimated" in told(other, capsys)
    seconds = [run.metrics.overall.makespan_seconds for run in (own, other)]
    assert seconds[1] > 2 * seconds[0]

    path = Path("traces/recorded/qasc-question-generation-alto")
    moved = Simulation(path=path, num_gpus=1, profile=shipped_profile(), gpu="L40S")
    there = moved.run(tmp_path / "there")
    assert facts(there)["profile"] == "L40S, alto-triton"
    assert kinds(there) == {"L40S"}
    assert kinds(Simulation(path=path, num_gpus=1).run(tmp_path / "here")) == kinds(Result(path))
    assert [one.best_val_loss for one in there.leaderboard] == [
        one.best_val_loss for one in Result(path).leaderboard
    ]
