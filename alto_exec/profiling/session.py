"""Measures this machine into a file of rows: what `alto profile --out` does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from alto_exec.backbones.decoder import Decoder, can_be_written_out
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.host.machine import device_of, dtype_of, settle
from alto_exec.host.process import multiply_with
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.profiling.bench import Bench, MeasuredStep
from alto_exec.profiling.cases import evaluation_cases, step_cases
from alto_exec.profiling.ceilings import copy_row, gemm_rows
from alto_exec.profiling.correctness import (
    cast,
    ours,
    plain,
    random_adapter,
    require_as_exact,
    wider,
)
from alto_exec.profiling.synthetic import config_of, random_model, random_samples, shape_of
from alto_exec.profiling.this_machine import this_machine
from alto_runs.arguments import check_new_file
from alto_runs.costs.shapes import KNOWN_SHAPES
from alto_runs.profile import Machine, Row, dump_rows
from alto_runs.study import ExecutorSpec

__all__ = ["checked", "write_profile"]

_ON_GPU, _ON_CPU = ("SmolLM2-135M", "Llama-3.2-1B", "Llama-3.1-8B"), ("SmolLM2-135M",)
_ROOM = 1.3  # of a backbone's weights, so that anything can train on it
_CHECKED_JOBS, _CHECKED_TOKENS = 2, 48

Say = Callable[[str], None]


def write_profile(out: Path, models: Sequence[str], say: Say, *, quick: bool = False) -> int:
    """Measure the models, or those that suit the machine, into a new file; the number of rows.

    Rows are written as they are measured, and each is told to `say`. Nothing of a model is timed
    before its losses and gradients were as exact as plain PyTorch's. Raises UserError.
    """
    check_new_file(out)
    spec = settle(ExecutorSpec())
    assert spec.threads is not None
    multiply_with(spec.threads)
    device = device_of(spec)
    configs = {name: config_of(name) for name in models or _suited(device)}
    shapes = {name: shape_of(config, Path(name).name) for name, config in configs.items()}
    num_rows = 0

    def write(row: Row) -> None:
        nonlocal num_rows
        with out.open("a", encoding="utf-8") as file:
            file.write(dump_rows([row]))
        num_rows += 1

    ceiling = this_machine(device, "alto profile: median of repeated products, of a copy")
    copy = copy_row(ceiling, device)
    write(copy)
    say(f"{ceiling.gpu}: copy {copy.bytes_per_second / 1e9:.0f} GB/s")
    for product in gemm_rows(ceiling, device, dtype_of(spec)):
        write(product)
    for name, config in configs.items():
        backbone, machine = checked(config, device, dtype_of(spec))
        bench = Bench(backbone, shapes[name], machine, _kernels(backbone))
        overs = []
        for step in bench.steps(step_cases(on_gpu=device.type == "cuda", quick=quick)):
            say(f"{name}: {_told(step)}")
            if step.row is not None:
                write(step.row)
            if step.over is not None:
                overs.append(step.over)
        if overs:
            say(f"{name}: {len(overs)} peaks predicted {min(overs):+.1%} to {max(overs):+.1%}")
        for evaluation in bench.evaluations(
            evaluation_cases(on_gpu=device.type == "cuda", quick=quick)
        ):
            write(evaluation)
            say(
                f"{name}: evaluation of {evaluation.jobs} x {evaluation.sequences} sequences of "
                f"{evaluation.length} tokens {evaluation.seconds:.3f} s"
            )
        del backbone, bench
    return num_rows


def _suited(device: torch.device) -> tuple[str, ...]:
    if device.type == "cpu":
        return _ON_CPU
    memory = torch.cuda.get_device_properties(device).total_memory
    sizes = {shape.name: 2 * shape.parameters for shape in KNOWN_SHAPES}
    return tuple(name for name in _ON_GPU if _ROOM * sizes[name] < memory)


def checked(config: Any, device: torch.device, dtype: torch.dtype) -> tuple[FrozenModel, Machine]:
    """A backbone whose losses and gradients are as exact as plain PyTorch's, and how exact."""
    model = random_model(config, device, dtype)
    samples = random_samples(_CHECKED_JOBS, _CHECKED_TOKENS, model.config.vocab_size)
    adapters = [random_adapter(model, seed) for seed in range(_CHECKED_JOBS)]
    torchs = [plain(model, a, sample) for a, sample in zip(adapters, samples, strict=True)]
    cast(model, wider(dtype))  # and back, which changes no bit
    exact = [plain(model, a, sample) for a, sample in zip(adapters, samples, strict=True)]
    cast(model, dtype)
    kind = Decoder if can_be_written_out(config) else Backbone
    backbone: FrozenModel = kind(model)
    error = require_as_exact(ours(backbone, adapters, samples), torchs, exact, dtype)
    source = (
        "alto profile: median of whole passes with AdamW, random weights; errors of losses and "
        f"gradients against {wider(dtype)} at most {error:.2f} of plain PyTorch's"
    )
    return backbone, this_machine(device, source)


def _kernels(backbone: FrozenModel) -> str:
    if backbone.device.type == "cpu":
        return "alto-torch"
    return "alto-triton" if isinstance(backbone, Decoder) else "alto-modules"


def _told(step: MeasuredStep) -> str:
    case = step.case
    text = f"{case.jobs} jobs of rank {case.rank}, {case.batch_size} x {case.length} tokens"
    if case.recompute:
        text += ", recomputed"
    if step.row is None:
        assert step.predicted_bytes is not None
        return f"{text}: not run, it would hold {step.predicted_bytes / 1e9:.1f} GB"
    row = step.row
    text += f": {row.seconds * 1e3:.1f} ms, {row.tokens / row.seconds:,.0f} tokens/s"
    if step.held_bytes is None or step.over is None:
        return text
    return f"{text}, {step.held_bytes / 1e9:.2f} GB at its peak, predicted {step.over:+.1%}"
