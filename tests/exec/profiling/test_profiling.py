"""`alto profile`: rows that other parts can read, and none where the results are wrong."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.passes.batch import PackedBatch
from alto_exec.profiling import bench, session
from alto_exec.profiling.bench import Bench
from alto_exec.profiling.cases import EvaluationCase
from alto_exec.profiling.correctness import Outcome, ours
from alto_exec.profiling.synthetic import config_of, shape_of
from alto_policy.memory import MemoryModel
from alto_runs.costs.shapes import shape_of as known_shape
from alto_runs.profile import EvaluationRow, GemmRow, StepRow, read_profile
from tests.cli.typed import mistake, typed

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A model without weights: its config alone."""
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
    )
    config.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def test_a_machine_is_measured_and_its_rows_are_checked(
    folder: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "mine.jsonl"
    answer = typed(capsys, "profile", "--out", out, "--model", folder, "--quick")
    rows = read_profile(out)
    assert (answer.status, answer.out) == (0, f"{out}: {len(rows)} rows\n")
    steps = [row for row in rows if isinstance(row, StepRow)]
    assert {(row.jobs, row.batch_size, row.rank, row.length) for row in steps} == {
        (1, 1, 8, 32),
        (1, 1, 8, 128),
        (1, 1, 64, 32),
        (1, 4, 8, 32),
    }
    assert {row.model.name for row in steps} == {"tiny"}
    assert all("of plain PyTorch's" in row.machine.source for row in steps)
    assert any(isinstance(row, EvaluationRow) for row in rows)
    products = {(row.inputs, row.outputs) for row in rows if isinstance(row, GemmRow)}
    assert products == {(576, 576), (576, 1536), (1536, 576)}
    checked = typed(capsys, "profile", "--check", out)
    assert f"{len(steps)} rows left out one at a time" in checked.out


def test_peaks_are_compared_with_what_was_predicted(
    folder: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that would tell them: passes of 32 and of 128 tokens."""
    model = MemoryModel(capacity=2000, fixed=0, per_rank=0, per_token=10)
    monkeypatch.setattr(Bench, "_memory", lambda *_: model)
    monkeypatch.setattr(bench, "_peak_bytes", lambda _: 1000)
    monkeypatch.setattr(bench, "pass_limits", lambda _: (64, 64))
    out = tmp_path / "mine.jsonl"
    told = typed(capsys, "profile", "--out", out, "--model", folder, "--quick").err
    assert "1 jobs of rank 8, 1 x 128 tokens: " in told
    assert "tokens/s, 0.00 GB at its peak, predicted +28.0%" in told
    assert "tiny: 4 peaks predicted -68.0% to +28.0%" in told


def test_nothing_is_overwritten(folder: str, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "mine.jsonl"
    out.write_text("precious", encoding="utf-8")
    told = mistake(capsys, "profile", "--out", out, "--model", folder)
    assert told == f"--out: {out} is there already, expected a new file"
    assert out.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_wrong_results_are_not_timed(
    what: str, folder: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*given: object) -> list[Outcome]:
        outcomes = ours(*given)  # type: ignore[arg-type]  # as they came
        if what == "loss":
            return [Outcome(outcome.loss * 1.01, outcome.gradients) for outcome in outcomes]
        return [Outcome(outcomes[0].loss, outcomes[1].gradients), outcomes[1]]

    monkeypatch.setattr(session, "ours", wrong)
    out = tmp_path / "mine.jsonl"
    told = mistake(capsys, "profile", "--out", out, "--model", folder, "--quick")
    assert told.startswith("not measured: on this device losses or gradients are ")
    assert not any(isinstance(row, StepRow) for row in read_profile(out))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--check", "--quick"], "--model and --quick go with --out: nothing is measured"),
        (["--out", "x", "--model", "GPT-9"], "--model: value 'GPT-9': expected a folder, a hub id"),
        (["--out", "x", "--model", "no/such"], "--model: 'no/such' is no folder here"),
    ],
)
def test_what_cannot_be_measured(flags: list[str], line: str, capsys: Capture) -> None:
    assert mistake(capsys, "profile", *flags).startswith(line)


def test_a_shape_known_by_name_becomes_a_model_of_that_shape() -> None:
    shape = known_shape("Llama-3.2-1B")
    assert shape_of(config_of("llama-3.2-1b"), shape.name) == shape


def test_evaluations_are_those_of_an_executor_that_keeps_activations(folder: str) -> None:
    """After training passes that compute them again; jobs in passes that they fill together."""
    backbone, machine = session.checked(config_of(folder), torch.device("cpu"), torch.float32)
    assert isinstance(backbone, Decoder)
    backbone.activations.recompute = True
    seen: list[int] = []
    losses = backbone.loss_sums

    def watched(bank: AdapterBank, batch: PackedBatch) -> torch.Tensor:
        assert not backbone.activations.recompute
        seen.append(len(batch.tokens_T))
        return losses(bank, batch)

    backbone.loss_sums = watched  # type: ignore[method-assign]
    timed = Bench(backbone, shape_of(config_of(folder), "tiny"), machine, "alto-torch")
    (row,) = timed.evaluations([EvaluationCase(jobs=3, sequences=4, length=8)])
    assert (row.jobs, row.sequences, row.length) == (3, 4, 8)
    assert set(seen) == {3 * 4 * 8}
