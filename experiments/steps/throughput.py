"""Whole training steps as others take them, on one GPU: the peers of `alto profile`'s rows.

    python -m experiments.steps.throughput --out rows.jsonl --models SmolLM2-135M Llama-3.2-1B

PEFT with one adapter over the tokens that a job brings to a step, 128 to 8,192, and the frozen
backbone alone. Random weights: speed only. No figures where a peer's first loss is not the loss of
transformers' own model.
"""

import argparse
import gc
from pathlib import Path
from typing import Any

import torch

from alto_exec.profiling.stopwatch import median_seconds
from alto_exec.profiling.synthetic import config_of, random_model, random_samples, shape_of
from alto_exec.profiling.this_machine import this_machine
from alto_runs.profile import JOB_SIZES, Machine, ModelShape, StepRow, Trained, dump_rows
from experiments.steps.peers import PEERS

__all__ = ["LOSSES_AGREE", "RANK", "measured"]

RANK = 16
FROZEN = ((16, 512),)  # batch size and length
LOSSES_AGREE = 5e-3  # relative, in bfloat16


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["peft"])
    options = parser.parse_args()
    machine = this_machine(
        torch.device("cuda"),
        "experiments/steps/throughput.py: median of whole steps, random weights",
    )
    for name in options.peers:  # Liger's patches are for good
        for model in options.models:
            config = config_of(model)
            shape = shape_of(config, model)
            for size in JOB_SIZES if name == "peft" else FROZEN:
                gc.collect()
                torch.cuda.empty_cache()
                try:
                    row = measured(name, config, shape, machine, size)
                except torch.OutOfMemoryError:
                    print(f"{model} {name}: {size[0]} x {size[1]} tokens: out of memory")
                    continue
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(dump_rows([row]))
                print(
                    f"{model} {name}: {size[0]} x {size[1]} tokens: {row.seconds * 1e3:.1f} ms, "
                    f"{row.tokens / row.seconds:,.0f} tokens/s, {row.peak_bytes} bytes",
                    flush=True,
                )


def measured(
    name: str, config: Any, shape: ModelShape, machine: Machine, size: tuple[int, int]
) -> StepRow:
    """Raises SystemExit where the first loss is wrong."""
    device, (batch_size, length) = torch.device("cuda"), size
    model = random_model(config, device, torch.bfloat16)
    samples = random_samples(batch_size, length, shape.vocabulary)
    tokens = torch.tensor([sample.tokens for sample in samples], device=device)
    with torch.no_grad():
        expected = float(model(input_ids=tokens, labels=tokens).loss)
    step = PEERS[name](model, tokens, RANK)
    first = float(step())
    if not abs(first / expected - 1) <= LOSSES_AGREE:
        raise SystemExit(f"{name}: first loss {first}, expected {expected}: no figures")
    torch.cuda.reset_peak_memory_stats()
    is_trained = name == "peft"
    return StepRow(
        machine=machine,
        model=shape,
        dtype="bfloat16",
        kernels=name,
        trained=Trained.LORA if is_trained else Trained.NONE,
        recompute=False,
        jobs=1,
        rank=RANK if is_trained else 0,
        batch_size=batch_size,
        length=length,
        seconds=median_seconds(step, device, repeats=5, warm_up=1),
        peak_bytes=torch.cuda.max_memory_allocated(),
    )


if __name__ == "__main__":
    main()
