"""Tokens a second of whole training steps: ALTO's jobs together, PEFT alone, the frozen backbone.

    python experiments/step_throughput.py --shape 1b --jobs 32 --length 512 --rank 16

Random weights in the shapes of Llama-3.1-8B, Llama-3.2-1B and SmolLM2-135M: speed only. A step is
forward, backward and optimizer on `jobs` sequences of `length` tokens, one of each job. The losses
of the first step stand beside those of PEFT on the same data: correctness gates speed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from alto_exec.bank import AdapterBank
from alto_exec.data.samples import Sample
from alto_exec.decoder import Decoder
from alto_exec.frozen_model import FrozenModel
from alto_exec.residence import Progress, Resident
from alto_exec.step import train_pass
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.versions import versions

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
SEED = 0


def random_model(shape: str, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=8192, rms_norm_eps=1e-5)
    torch.manual_seed(SEED)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.requires_grad_(False).eval()


def samples(count: int, length: int, vocabulary: int) -> list[Sample]:
    """Random tokens, all of them targets but the first."""
    dice = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(vocabulary, (count, length), generator=dice).tolist()
    is_target = (False, *(True,) * (length - 1))
    return [Sample(tuple(row), is_target) for row in tokens]


def jobs_of(count: int, rank: int, batch_size: int) -> list[Job]:
    return [
        Job(
            id=JobId(f"job-{number}"),
            hyperparameters=Hyperparameters(
                rank=rank, alpha=2 * rank, learning_rate=1e-4, batch_size=batch_size, seed=number
            ),
            steps=1000,
            reports=1,
        )
        for number in range(count)
    ]


def residents_of(jobs: list[Job], bank: AdapterBank) -> list[Resident]:
    slots = [bank.join(bank.fresh(j.hyperparameters.rank, j.hyperparameters.seed)) for j in jobs]
    return [Resident(job, slot, Progress()) for job, slot in zip(jobs, slots, strict=True)]


def time_steps(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds, after two steps that warm up."""
    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def measure_ours(
    model: FrozenModel, data: list[Sample], options: argparse.Namespace
) -> dict[str, object]:
    device = model.device
    bank = AdapterBank(model.shapes, device, rows=options.jobs * options.rank, dtype=model.dtype)
    residents = residents_of(jobs_of(options.jobs, options.rank, options.batch), bank)
    parts = [residents[i : i + options.at_once] for i in range(0, len(residents), options.at_once)]

    def step() -> None:
        for part in parts:
            train_pass(model, bank, data, part)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train_pass(model, bank, data, parts[0])
    first = [r.progress.loss_sum for r in parts[0]][:2]
    seconds = time_steps(step, options.repeats, device)
    return {
        "what": "alto",
        "seconds": seconds,
        "tokens_per_second": options.jobs * options.batch * options.length / seconds,
        "peak_gb": _peak(device),
        "first_losses": first,
    }


def measure_peft(
    model: Any, data: list[Sample], options: argparse.Namespace, batch: int
) -> dict[str, object]:
    """One adapter, PyTorch's AdamW, the batch as transformers takes it."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    peft = get_peft_model(model, config).train()
    trained = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    tokens = torch.tensor([s.tokens for s in data[:batch]], device=model.device)
    losses: list[float] = []

    def step() -> None:
        loss = peft(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))

    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = time_steps(step, options.repeats, model.device)
    return {
        "what": f"peft alone, batch {batch}",
        "seconds": seconds,
        "tokens_per_second": batch * options.length / seconds,
        "peak_gb": _peak(model.device),
        "first_losses": losses[:1],
    }


def _peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--at-once", type=int, help="jobs in one pass; all by default")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--peft-batches", type=int, nargs="*", default=[1])
    options = parser.parse_args()
    options.at_once = options.at_once or options.jobs
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    vocabulary = SHAPES[options.shape]["vocab_size"]
    data = samples(max([64, *options.peft_batches]), options.length, vocabulary)
    facts = {"shape": options.shape, **vars(options), **versions("torch", "transformers")}
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(facts))
    model = random_model(options.shape, device, dtype)
    decoder = Decoder(model, recompute=options.recompute)
    print(json.dumps(measure_ours(decoder, data, options)), flush=True)
    del model, decoder
    for batch in options.peft_batches:
        model = random_model(options.shape, device, dtype)
        print(json.dumps(measure_peft(model, data, options, batch)), flush=True)
        del model


if __name__ == "__main__":
    main()
