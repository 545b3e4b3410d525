"""Measures the operations around the linears at the 8B shape against PyTorch's own.

PYTHONPATH=kernels python -m bench.ops --out rows.jsonl --commit COMMIT
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from alto_exec.profiling.this_machine import this_machine
from alto_kernels.adamw import Bank, Moments, Update, adamw, adamw_ref
from alto_kernels.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_ref
from alto_kernels.rms_norm import add_rms_norm, add_rms_norm_ref
from alto_kernels.rope import rope, rope_ref
from alto_kernels.swiglu import swiglu, swiglu_ref
from alto_kernels.varlen_attention import CumulativeLengths, varlen_attention
from alto_kernels.varlen_attention.autograd import flash_attention
from alto_runs.profile import CopyRow, GemmRow, Machine, OperationRow
from bench.rows import KERNELS, append
from bench.timing import medians

TOKENS, HIDDEN, MIDDLE, VOCABULARY = 8192, 4096, 14336, 128256
HEADS, KEY_HEADS, SIZE = 32, 8, 128
Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", required=True)
    arguments = parser.parse_args()
    machine = this_machine(torch.device("cuda"), "median of CUDA graph replays", arguments.commit)
    _ceilings(machine, arguments.out)
    for name, ours, torchs in _pairs():
        # The optimizer copies its tables anew in each step, which a graph would not.
        times = medians(
            {"ours": ours, "torch": torchs}, rounds=11, graphs=not name.startswith("adamw")
        )
        print(
            f"{name:22} ours {times['ours']:8.3f} ms   torch {times['torch']:8.3f} ms", flush=True
        )
        row = OperationRow(
            machine=machine,
            op=name,
            kernels=KERNELS,
            tokens=TOKENS,
            seconds=times["ours"] / 1e3,
            base_seconds=times["torch"] / 1e3,
        )
        append(arguments.out, row)
        torch.cuda.empty_cache()


def _ceilings(machine: Machine, out: Path) -> None:
    """Copy of a large tensor, and products of the frozen linears' sizes by the card's library."""
    x, wide = _normal(TOKENS, HIDDEN), _normal(TOKENS, MIDDLE)
    sizes = ((HIDDEN, HIDDEN), (HIDDEN, MIDDLE), (MIDDLE, HIDDEN))
    products = {f"product {TOKENS} x {i} x {o}": (i, o) for i, o in sizes}
    runs: dict[str, Run] = {"copy": wide.clone}
    for name, (inputs, outputs) in products.items():
        runs[name] = partial(torch.mm, x if inputs == HIDDEN else wide, _normal(inputs, outputs))
    for name, ms in medians(runs).items():
        print(f"{name:28} {ms:8.3f} ms", flush=True)
        if name == "copy":
            append(out, CopyRow(machine=machine, bytes_per_second=2 * wide.nbytes / ms * 1e3))
        else:
            inputs, outputs = products[name]
            row = GemmRow(
                machine=machine,
                dtype="bfloat16",
                tokens=TOKENS,
                inputs=inputs,
                outputs=outputs,
                seconds=ms / 1e3,
            )
            append(out, row)


def _pairs() -> Iterator[tuple[str, Run, Run]]:
    x, weight = _normal(TOKENS, HIDDEN), _normal(HIDDEN)
    yield (
        "rms-norm",
        _both_ways(lambda x: add_rms_norm(x, x, weight, 1e-5)[1], x),
        _both_ways(lambda x: add_rms_norm_ref(x, x, weight, 1e-5)[1], x),
    )
    gate, up = _normal(TOKENS, MIDDLE), _normal(TOKENS, MIDDLE)
    yield "swiglu", _both_ways(swiglu, gate, up), _both_ways(swiglu_ref, gate, up)
    heads = _normal(TOKENS, HEADS * SIZE)
    cos, sin = (torch.rand(TOKENS, SIZE // 2, device="cuda") for _ in range(2))
    yield (
        "rope",
        _both_ways(lambda h: torch.cat(rope(h, h, h, cos, sin), 1), heads),
        _both_ways(lambda h: torch.cat(rope_ref(h, h, h, cos, sin), 1), heads),
    )
    for length in (512, 1024, 2048, 4096):
        yield _attention(length)
    head = _normal(VOCABULARY, HIDDEN)
    targets = torch.randint(0, VOCABULARY, (TOKENS,), device="cuda")
    yield (
        "linear-cross-entropy",
        _both_ways(lambda h: linear_cross_entropy(h, head, targets), x),
        _both_ways(lambda h: linear_cross_entropy_ref(h, head, targets), x),
    )
    columns = 7 * (HIDDEN + HIDDEN) * 4  # some layers of the bank
    updates = [Update(16 * i, 16 * i + 16, i, 1e-4, clip=1.0) for i in range(32)]
    for name, in_8_bits in (("adamw", False), ("adamw-8-bit", True)):
        moments = Moments.zeros(512, columns, torch.device("cuda"), in_8_bits=in_8_bits)
        value, gradient = (torch.zeros(512, columns, device="cuda") for _ in range(2))
        bank = Bank(value, gradient, moments)
        yield name, partial(adamw, bank, updates), partial(adamw_ref, bank, updates)


def _attention(length: int) -> tuple[str, Run, Run]:
    """Packed sequences of one length, ours beside PyTorch's flash attention behind our rope."""
    sequences = CumulativeLengths.of((length,) * (TOKENS // length), torch.device("cuda"))
    widths = [heads * SIZE for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    qkv = _normal(TOKENS, sum(widths))
    cos, sin = (torch.rand(TOKENS, SIZE // 2, device="cuda") for _ in range(2))

    def ours(x: Tensor) -> Tensor:
        q, k, v = x.split(widths, dim=1)
        return varlen_attention(q, k, v, cos, sin, sequences, SIZE)

    def flash(x: Tensor) -> Tensor:
        q, k, v = x.split(widths, dim=1)
        q, k, v = rope(q, k, v, cos, sin)
        return flash_attention(q, k, v, sequences, SIZE)

    return f"attention, {length} tokens each", _both_ways(ours, qkv), _both_ways(flash, qkv)


def _both_ways(function: Callable[..., Tensor], *inputs: Tensor) -> Run:
    """Forward and backward."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    dy = torch.randn_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, dy)


def _normal(*size: int) -> Tensor:
    return torch.randn(*size, device="cuda", dtype=torch.bfloat16)


if __name__ == "__main__":
    main()
