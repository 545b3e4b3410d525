"""Measures the grouped LoRA linear, forward and backward, over its frozen linears.

    PYTHONPATH=kernels python -m bench.lora_linear --out rows.jsonl --commit COMMIT

With `--lorafusion FOLDER` the kernels of LoRAFusion in that folder are one more peer. A row is
written only where our result is as exact as PyTorch's own (see `error_ratio`).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path

import torch
from torch import Tensor
from triton.errors import TritonError

from alto_exec.profiling.this_machine import this_machine
from alto_kernels.lora_linear import lora_linear_group, lora_linear_group_ref
from alto_runs.profile import Direction, KernelRow, Machine
from bench.lora_cases import BARS, BATCHES, SHAPES, Batch, Operands, Shape, operands
from bench.lora_peers import PEERS, Peer
from bench.lorafusion import lorafusion
from bench.rows import KERNELS, append
from bench.timing import medians

_ALLOWED = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--peers", default=",".join(PEERS), help="frozen and ours are always there")
    parser.add_argument("--models", default="8B,1B")
    parser.add_argument("--batches", default=",".join(batch.name for batch in BATCHES))
    parser.add_argument("--lorafusion", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    names = dict.fromkeys(["frozen", "ours", *arguments.peers.split(",")])
    peers = {name: PEERS[name] for name in names}
    if arguments.lorafusion is not None:
        peers["lorafusion"] = lorafusion(arguments.lorafusion)
    chosen = arguments.batches.split(",")
    for batch in (batch for batch in BATCHES if batch.name in chosen):
        for model in arguments.models.split(","):
            shapes = [shape for shape in SHAPES if shape.model == model]
            ratios = [_measure(shape, batch, peers, arguments) for shape in shapes]
            print(summary(model, batch, ratios), flush=True)


def summary(model: str, batch: Batch, ratios: Sequence[Mapping[str, float]]) -> str:
    """One line: geometric means of the groups by peer, and what they are held to."""
    means = {
        name: exp(sum(log(r[name]) for r in ratios) / len(ratios))
        for name in ratios[0]
        if all(name in r for r in ratios)
    }
    line = f"{model} {batch.name:14} geometric mean   {_line(means)}"
    bar = BARS.get((model, batch.name))
    if bar is None:
        return line
    return f"{line}   bar {bar:.2f} {'met' if means['ours'] <= bar else 'MISSED'}"


def _measure(
    shape: Shape, batch: Batch, peers: Mapping[str, Peer], arguments: argparse.Namespace
) -> dict[str, float]:
    """Time of each peer over that of the frozen linears; a row of the profile for each."""
    o = operands(shape, batch, torch.device("cuda"))
    exactness = error_ratio(o)
    runs = {}
    for name, peer in peers.items():
        try:
            run = peer(o)
            run()
        except (RuntimeError, ValueError, TritonError) as error:
            print(f"{name} does not run here: {str(error).splitlines()[0][:100]}")
        else:
            runs[name] = run
    times = medians(runs)
    ratios = {name: ms / times["frozen"] for name, ms in times.items()}
    print(f"{shape.model} {batch.name:14} {shape.group:8} error {exactness:.2f} {_line(ratios)}")
    if exactness > _ALLOWED:
        raise SystemExit(f"error {exactness:.2f} of PyTorch's own: no figures")
    source = f"median of CUDA graph replays; {shape.model} {shape.group}, {batch.name}"
    machine = this_machine(
        o.x.device, f"{source}; error {exactness:.2f} of PyTorch's", arguments.commit
    )
    for name, ms in times.items():
        if name != "frozen":
            append(arguments.out, _row(machine, shape, batch, name, ms, times["frozen"]))
    return ratios


def _row(
    machine: Machine, shape: Shape, batch: Batch, name: str, ms: float, frozen_ms: float
) -> KernelRow:
    return KernelRow(
        machine=machine,
        op=f"lora-linear {shape.group}",
        kernels=KERNELS if name == "ours" else name.replace("_", "-"),
        dtype="bfloat16",
        direction=Direction.BOTH,
        inputs=shape.inputs,
        outputs=sum(shape.outputs),
        tokens=sum(batch.sizes),
        jobs=len(batch.sizes),
        rank=round(sum(batch.ranks) / len(batch.ranks)),
        seconds=ms / 1e3,
        base_seconds=frozen_ms / 1e3,
    )


def error_ratio(o: Operands) -> float:
    """Largest error of ours against float64 over PyTorch's own in bf16: of y, dx, dA and dB."""
    o.group.grad_a_RMI.zero_()
    o.group.grad_b_RO.zero_()
    y = torch.cat(lora_linear_group(o.x, o.group, o.plan), dim=1)
    (dx,) = torch.autograd.grad(y, [o.x], o.dy)
    ours = [y, dx, o.group.grad_a_RMI, o.group.grad_b_RO]
    torchs, exact = _reference(o, torch.bfloat16), _reference(o, torch.float64)
    return max(
        _error(mine, e) / _error(theirs, e)
        for mine, theirs, e in zip(ours, torchs, exact, strict=True)
    )


def _reference(o: Operands, dtype: torch.dtype) -> list[Tensor]:
    x, a, b = (t.detach().to(dtype).requires_grad_() for t in (o.x, o.group.a_RMI, o.group.b_RO))
    group = replace(o.group, weight_OI=o.group.weight_OI.to(dtype), a_RMI=a, b_RO=b)
    y = lora_linear_group_ref(x, group, o.plan)
    return [y.detach(), *torch.autograd.grad(y, [x, a, b], o.dy.to(dtype))]


def _error(result: Tensor, exact: Tensor) -> float:
    return float((result.detach().double() - exact).abs().max())


def _line(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())


if __name__ == "__main__":
    main()
