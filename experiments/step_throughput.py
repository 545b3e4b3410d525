"""Whole training steps on one GPU: ALTO's jobs together and alone, and the peers, in one run.

    python -m experiments.step_throughput --model Llama-3.2-1B --out rows.jsonl

Over the tokens that one job brings to a pass: 128 to 8,192. ALTO trains as many jobs beside one
another as make up --tokens, PEFT one. Random weights in the shape of the model: speed only. ALTO's
losses and gradients are compared with plain PyTorch's first, and the peers' first losses with one
another.
"""

import argparse
import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from alto_exec.profiling.cases import StepCase
from alto_exec.profiling.passes import Bench
from alto_exec.profiling.session import checked_backbone
from alto_exec.profiling.stopwatch import median_seconds
from alto_exec.profiling.synthetic import config_of, random_model, random_samples, shape_of
from alto_exec.profiling.this_machine import this_machine
from alto_runs.profile import Machine, ModelShape, StepRow, Trained, dump_rows
from experiments.step_peers import PEERS

RANK, MOST_JOBS = 16, 32
PER_JOB = ((1, 128), (1, 512), (2, 512), (4, 512), (8, 512), (16, 512))  # batch size and length
FROZEN = ((16, 512),)
LOSSES_AGREE = 5e-3  # relative, of peers on the same tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", help="that is measured, where this is no checkout")
    parser.add_argument("--tokens", type=int, default=16_384, help="in one pass of ALTO's jobs")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["peft"])
    options = parser.parse_args()
    config = config_of(options.model)
    shape = shape_of(config, options.model)
    device = torch.device("cuda")
    machine = this_machine(device, "experiments/step_throughput.py", options.commit)
    for row in (*_ours(config, shape, options), *_peers(config, shape, machine, options)):
        with options.out.open("a", encoding="utf-8") as file:
            file.write(dump_rows([row]))


def _ours(config: Any, shape: ModelShape, options: argparse.Namespace) -> Iterator[StepRow]:
    backbone, machine = checked_backbone(config, torch.device("cuda"), torch.bfloat16)
    if options.commit:
        machine = replace(machine, commit=options.commit)
    bench = Bench(backbone, shape, machine, "alto-triton")
    cases: list[StepCase] = []
    for batch_size, length in PER_JOB:
        together = min(MOST_JOBS, options.tokens // (batch_size * length))
        jobs = sorted({1, together} - {0})
        cases += [StepCase(count, RANK, batch_size, length) for count in jobs]
    for measured in bench.steps(cases):
        if measured.row is not None:
            _tell(measured.row)
            yield measured.row


def _peers(
    config: Any, shape: ModelShape, machine: Machine, options: argparse.Namespace
) -> Iterator[StepRow]:
    for name in options.peers:
        for batch_size, length in PER_JOB if name == "peft" else FROZEN:
            gc.collect()
            torch.cuda.empty_cache()
            try:
                yield _peer(name, config, shape, machine, (batch_size, length))
            except torch.OutOfMemoryError:
                print(f"{shape.name} {name}: {batch_size} x {length} tokens: out of memory")


def _peer(
    name: str, config: Any, shape: ModelShape, machine: Machine, size: tuple[int, int]
) -> StepRow:
    """Raises SystemExit where its first loss is not that of transformers' own model."""
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
    seconds = median_seconds(step, device, repeats=5, warm_up=2)
    is_trained = name == "peft"
    row = StepRow(
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
        seconds=seconds,
        peak_bytes=torch.cuda.max_memory_allocated(),
    )
    _tell(row)
    return row


def _tell(row: StepRow) -> None:
    print(
        f"{row.model.name} {row.kernels}: {row.jobs} x {row.batch_size} x {row.length} tokens: "
        f"{row.seconds * 1e3:.1f} ms, {row.tokens / row.seconds:,.0f} tokens/s, "
        f"{(row.peak_bytes or 0) / 1e9:.1f} GB",
        flush=True,
    )


if __name__ == "__main__":
    main()
