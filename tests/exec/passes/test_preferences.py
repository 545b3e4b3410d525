"""Direct preference optimization: a job trained by ALTO is the one that TRL and PEFT train."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.samples import Pair, Sample, encode_pair
from alto_exec.passes.evaluation import FROZEN, Adapter, validation_losses
from alto_exec.passes.objective import PairsOfJob, Preferences, References, TokenMeans
from alto_exec.passes.weighing import FixedWeights
from alto_policy.types import Job
from alto_runs.data_records import Completion, Preference
from alto_runs.sample_order import batch_indices
from tests.exec.comparing import Trajectory, assert_close, assert_same_training
from tests.exec.packed_loop import PackedRun, a_job, ragged_samples, tiny_model
from tests.exec.plain_loop import as_peft
from tests.exec.tiny_models import tiny_tokenizer


def ragged_pairs(count: int = 12) -> list[Pair]:
    """Two endings of different lengths behind one beginning."""
    starts, chosen, rejected = (ragged_samples(count, seed) for seed in range(3))
    return [
        Pair(_ending(start, good), _ending(start, bad))
        for start, good, bad in zip(starts, chosen, rejected, strict=True)
    ]


def _ending(start: Sample, end: Sample) -> Sample:
    is_target = (False,) * len(start.tokens) + (True,) * len(end.tokens)
    return Sample(start.tokens + end.tokens, is_target)


PAIRS = ragged_pairs()


def log_probability(model: Any, answer: Sample) -> Tensor:
    tokens = torch.tensor(answer.tokens)
    each = model(input_ids=tokens[None]).logits[0, :-1].log_softmax(-1)
    of_targets: Tensor = each[torch.arange(len(tokens) - 1), tokens[1:]]
    return of_targets[torch.tensor(answer.is_target)[1:]].sum()


def train_plainly(family: str, job: Job, first: Mapping[str, Tensor]) -> Trajectory:
    """One pair at a time on a model of the job's own, beside a second model without adapter."""
    h = job.hyperparameters
    frozen, peft = tiny_model(family), as_peft(tiny_model(family), h, first)
    trained = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=h.learning_rate, weight_decay=h.weight_decay)
    losses = []
    for step in range(job.steps):
        loss = 0.0
        for index in batch_indices(h.seed, step, h.samples_per_step, len(PAIRS)):
            pair = PAIRS[index]
            with torch.no_grad():
                before = log_probability(frozen, pair.chosen) - log_probability(
                    frozen, pair.rejected
                )
            now = log_probability(peft, pair.chosen) - log_probability(peft, pair.rejected)
            part = -logsigmoid(h.dpo_beta * (now - before)) / h.samples_per_step
            part.backward()
            loss += part.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    adapter = {n.replace(".default", ""): p.detach() for n, p in peft.named_parameters()}
    return Trajectory(tuple(losses), {n: adapter[n] for n in first})


JOBS = (
    a_job("defaults"),
    a_job("in passes", batch_size=2, accumulation=2, seed=1, dpo_beta=0.5),
    a_job("many epochs", steps=5, batch_size=5, rank=7, seed=2, learning_rate=1e-3),
)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_packed_jobs_prefer_as_each_would_in_peft(family: str) -> None:
    run = PackedRun.of(family, PAIRS)
    for job in JOBS:
        run.join(job)
    first = {job.id: run.trajectory(job.id).adapter for job in JOBS}
    run.finish()
    for job in JOBS:
        assert_same_training(run.trajectory(job.id), train_plainly(family, job, first[job.id]))


@pytest.mark.usefixtures("double_precision")
def test_what_is_known_of_the_frozen_model_changes_nothing() -> None:
    """Nor is a pair that is known seen by the frozen model again."""

    def trained(references: References | None) -> tuple[Trajectory, int]:
        run = PackedRun.of("llama", PAIRS, references=references)
        run.join(JOBS[2])
        run.finish()
        return run.trajectory(JOBS[2].id), run.tokens

    kept = References()
    (known, few), (unknown, many) = trained(kept), trained(None)
    assert_same_training(known, unknown)
    assert set(kept.known) == set(PAIRS)
    own = 5 * 5 * sum(p.most_tokens for p in PAIRS) / len(PAIRS) / 2
    assert few < many
    assert own < few


def test_a_pair_in_two_jobs_is_seen_once_by_the_frozen_model() -> None:
    part = PairsOfJob(tuple(PAIRS[:2]), in_step=2, beta=0.1)
    (share,) = Preferences([part, part], References()).frozen_shares
    assert share.slot is None
    assert share.samples == tuple(answer for pair in PAIRS[:2] for answer in pair.samples)


def test_an_untrained_job_is_indifferent() -> None:
    run = PackedRun.of("llama", PAIRS)
    run.join(a_job("new", steps=1))
    run.finish()
    assert_close(torch.tensor(run.trajectory("new").losses), torch.tensor([2.0]).log())


class OnHost:
    device = torch.device("cpu")
    dtype = torch.float64


def test_the_weights_are_the_derivative_of_the_losses() -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [PairsOfJob((PAIRS[0], PAIRS[1]), 4, 0.5), PairsOfJob((PAIRS[1], PAIRS[2]), 2, 2.0)]
    pairs = [pair for part in parts for pair in part.pairs]
    known = dict.fromkeys(pairs, (3.0, 2.0))
    targets = sum(answer.num_targets for pair in pairs for answer in pair.samples)
    losses_N = torch.rand(targets, generator=draw, dtype=torch.float64)
    weights_N = Preferences(parts, References(known)).weigh(OnHost())(losses_N)
    for n in range(0, targets, 7):
        moved = losses_N.clone()
        moved[n] += 1e-5
        before, after = (
            sum(Preferences(parts, References(known)).job_losses(each.numpy()))
            for each in (losses_N, moved)
        )
        assert (after - before) / 1e-5 == pytest.approx(float(weights_N[n]), rel=1e-4)


def test_token_means_are_known_before_the_losses() -> None:
    weights = TokenMeans([[PAIRS[0].chosen]], [PAIRS[0].samples]).weigh(OnHost())
    assert isinstance(weights, FixedWeights)
    of_step = sum(answer.num_targets for answer in PAIRS[0].samples)
    assert weights.weights_N.tolist() == [1 / of_step] * PAIRS[0].chosen.num_targets


def test_a_pass_of_validation_judges_all_adapters_as_each_alone() -> None:
    backbone = Backbone(tiny_model("llama"))
    bank = AdapterBank(backbone.shapes, backbone.device)
    adapters = [FROZEN]
    for seed in range(3):
        state = bank.fresh(4, seed)
        state.value_rC.normal_(std=0.2, generator=torch.Generator().manual_seed(seed))
        adapters.append(Adapter(bank.join(state), 2.0, dpo_beta=0.1 + seed))
    together = validation_losses(backbone, bank, PAIRS, adapters)
    assert together[0] == pytest.approx(math.log(2))
    for adapter, found in zip(adapters, together, strict=True):
        (alone,) = validation_losses(backbone, bank, PAIRS, [adapter])
        assert_close(torch.tensor(found), torch.tensor(alone))


@pytest.mark.usefixtures("double_precision")
def test_validation_is_the_mean_over_the_pairs_of_what_training_reports() -> None:
    job = a_job("whole set", steps=2, batch_size=len(PAIRS), dpo_beta=0.4)
    run = PackedRun.of("llama", PAIRS)
    run.join(job)
    run.advance()
    adapter = Adapter.of(run.resident(job.id))
    (found,) = validation_losses(run.backbone, run.bank, PAIRS, [adapter])
    run.advance()
    assert found == pytest.approx(run.trajectory(job.id).losses[1], rel=1e-6)


WORDS = ("red", "green", "blue", "a long colour", "none", "ten")


@pytest.mark.usefixtures("double_precision")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_job_is_the_one_that_trl_trains(tmp_path: Path) -> None:
    """Its trainer makes its own tokens of the same texts."""
    import datasets
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    datasets.disable_progress_bars()  # type: ignore[attr-defined]
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    tokenizer = tiny_tokenizer(chat_template=None)
    texts = [(f"Colour {i}?", WORDS[i % 6], WORDS[(i + 2) % 6]) for i in range(8)]
    pairs = [
        encode_pair(Preference(Completion(p, good), Completion(p, bad)), tokenizer)
        for p, good, bad in texts
    ]
    job = a_job("trl", steps=4, batch_size=2, weight_decay=0.02, dpo_beta=0.3)
    run = PackedRun.of("llama", pairs)
    run.join(job)
    first = run.trajectory(job.id).adapter
    run.finish()

    h = job.hyperparameters
    order = [i for step in range(4) for i in batch_indices(h.seed, step, 2, len(pairs))]
    rows = [dict(zip(("prompt", "chosen", "rejected"), texts[i], strict=True)) for i in order]
    losses: list[float] = []

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(rows)

        def compute_loss(self, *given: Any, **named: Any) -> Any:
            loss = super().compute_loss(*given, **named)  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            return loss

    arguments = DPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        per_device_train_batch_size=2,
        num_train_epochs=1,
        learning_rate=h.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=h.weight_decay,
        max_grad_norm=0.0,
        beta=h.dpo_beta,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
        bf16=False,
    )
    peft = as_peft(tiny_model("llama"), h, first)
    trainer = InOrder(
        model=peft,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),  # type: ignore[attr-defined]
        processing_class=tokenizer,
    )
    trainer.train()
    trained = dict(peft.named_parameters())
    adapter = {n: trained[n.replace(".weight", ".default.weight")].detach() for n in first}
    found = run.trajectory(job.id)
    assert_same_training(Trajectory(found.losses, {}), Trajectory(tuple(losses), {}))
    # TRL's head computes in fp32 even here, which Adam enlarges where a gradient is nearly zero:
    # what the adapters predict is compared, not each of their matrices.
    assert_close(run.logits(job, found.adapter), run.logits(job, adapter), "logits")
