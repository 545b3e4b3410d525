"""A job's losses in bfloat16 beside other jobs and alone, beside PyTorch's own spread.

    python -m experiments.cards.bf16_losses --out losses.csv --seeds 8

Runs of PEFT and AdamW that differ in the shape of their batches alone (four sequences at once,
twice two, accumulated) say how far roundings lead one job astray in 200 steps.
Whether a job stands alone, beside 7 others or beside 31 may lead it no further. A model of the
width of SmolLM2-135M with random weights learns sequences in which each token has few that may
follow; a seed draws the job's adapter and the order of its data. Seeds run side by side, and their
rows are written as they end.
"""

import argparse
import csv
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from alto_exec.adapters.bank import AdapterBank, AdapterState
from alto_exec.backbones.compiling import compile_passes
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Sample
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.passes.training import train_pass
from alto_exec.profiling.synthetic import config_of, random_model
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId
from alto_runs.sample_order import batch_indices

SAMPLES, LENGTH, FOLLOWERS = 256, 64, 4
NUM_OTHERS = (31, 7, 0)
PARTS = (1, 2)  # passes of PyTorch's that make up a step
OURS, TORCHS = ("packed", "beside_7", "alone"), ("peft_4", "peft_2x2")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    if torch.cuda.is_available():
        compile_kernels(options.layers)
    run = partial(losses_of, steps=options.steps, layers=options.layers)
    processes = max(1, min(options.seeds, len(os.sched_getaffinity(0)) // 2))
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        options.out.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("seed", "step", *OURS, *TORCHS))
        seeds = {pool.submit(run, seed): seed for seed in range(options.seeds)}
        for done in as_completed(seeds):
            seed, losses = seeds[done], done.result()
            for step, row in enumerate(losses, 1):
                writer.writerow((seed, step, *(f"{loss:.8g}" for loss in row)))
            file.flush()
            print(f"seed {seed}: last losses", *(f"{loss:.4f}" for loss in losses[-1]), flush=True)


def compile_kernels(layers: int) -> None:
    """So that not each process does it, one kernel after another."""
    config, jobs = shortened(layers), all_jobs(0, 1)
    backbone = Decoder(random_model(config, torch.device("cuda"), torch.bfloat16))
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0, dtype=backbone.dtype)
    for chosen in (jobs, jobs[:1]):
        task = Task(id=TaskId("losses"), jobs=tuple(chosen), backbone="", max_length=LENGTH)
        compile_passes(backbone, bank, task)


def losses_of(seed: int, *, steps: int, layers: int) -> list[tuple[float, ...]]:
    """Of each step, one job's loss in each run, in the order of the columns."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = shortened(layers)
    data = sequences(config.vocab_size)
    job, *others = all_jobs(seed, steps)
    backbone = Decoder(random_model(config, device, torch.bfloat16))
    first = AdapterBank(backbone.shapes, device, rows=0).fresh(16, seed=job.hyperparameters.seed)
    runs = [list(trained(backbone, [job, *others[:count]], data)) for count in NUM_OTHERS]
    runs += [
        list(trained_by_peft(config, device, job, data, backbone, first, parts=parts))
        for parts in PARTS
    ]
    return list(zip(*runs, strict=True))


def shortened(layers: int) -> Any:
    config = config_of("SmolLM2-135M")
    config.num_hidden_layers = layers
    return config


def all_jobs(seed: int, steps: int) -> list[Job]:
    """The one that is looked at, and the others."""
    others = [
        a_job(number, steps, seed, rank=(4, 8, 16, 64)[number % 4], batch_size=1 + number % 3)
        for number in range(1, 1 + max(NUM_OTHERS))
    ]
    return [a_job(0, steps, seed, rank=16, batch_size=4), *others]


def sequences(vocabulary: int) -> list[Sample]:
    """After each token one of a few may stand; all but the first are targets."""
    dice = torch.Generator().manual_seed(0)
    followers = torch.randint(vocabulary, (vocabulary, FOLLOWERS), generator=dice)
    samples = []
    for _ in range(SAMPLES):
        tokens = [int(torch.randint(64, (1,), generator=dice))]
        for choice in torch.randint(FOLLOWERS, (LENGTH - 1,), generator=dice).tolist():
            tokens.append(int(followers[tokens[-1], choice]) % 512)
        samples.append(Sample(tuple(tokens), (False, *(True,) * (LENGTH - 1))))
    return samples


def a_job(number: int, steps: int, seed: int, *, rank: int, batch_size: int) -> Job:
    h = Hyperparameters(
        rank=rank,
        alpha=2 * rank,
        learning_rate=1e-3,
        batch_size=batch_size,
        seed=1000 * seed + number,
    )
    return Job(id=JobId(f"job-{number}"), hyperparameters=h, steps=steps, reports=1)


def trained(backbone: Decoder, jobs: Sequence[Job], data: Sequence[Sample]) -> Iterator[float]:
    """The loss of the first job at each step."""
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0, dtype=backbone.dtype)
    residents = []
    for job in jobs:
        state = bank.fresh(job.hyperparameters.rank, job.hyperparameters.seed)
        residents.append(Resident(job, bank.join(state), Progress()))
    for _ in range(jobs[0].steps):
        before = residents[0].progress.loss_sum
        train_pass(backbone, bank, data, residents)
        yield residents[0].progress.loss_sum - before


def trained_by_peft(
    config: Any,
    device: torch.device,
    job: Job,
    data: Sequence[Sample],
    backbone: Decoder,
    first: AdapterState,
    *,
    parts: int,
) -> Iterator[float]:
    """The same job from the same adapter on the same sequences, each step in so many passes."""
    from peft import LoraConfig, get_peft_model

    h = job.hyperparameters
    lora = LoraConfig(r=h.rank, lora_alpha=int(h.alpha), target_modules="all-linear")
    model = get_peft_model(random_model(config, device, torch.bfloat16), lora).train()
    bank = AdapterBank(backbone.shapes, torch.device("cpu"), rows=0)
    with torch.no_grad():
        for name, a_rI, b_rO in bank.matrices(first.value_rC):
            linear: Any = model.get_submodule(f"base_model.model.{name}")
            linear.lora_A["default"].weight.copy_(a_rI)
            linear.lora_B["default"].weight.copy_(b_rO.T)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=h.learning_rate, weight_decay=h.weight_decay, betas=(h.beta1, h.beta2)
    )
    losses = []
    for step in range(job.steps):
        drawn = batch_indices(h.seed, step, h.samples_per_step, len(data))
        tokens = torch.tensor([data[index].tokens for index in drawn], device=device)
        total = torch.zeros((), device=device)
        for part in tokens.chunk(parts):
            loss = model(input_ids=part, labels=part).loss / parts
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    yield from torch.stack(losses).tolist()


if __name__ == "__main__":
    main()
