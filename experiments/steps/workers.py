"""What one process of `together` measures: whole steps of a system, on one shape of model.

Nothing is timed of a system whose losses and gradients are further from float32's than twice those
of plain PyTorch, or, of one adapter of PEFT's and of a frozen backbone, whose first loss is not
that of transformers' own model.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.compiling import compile_passes
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Sample
from alto_exec.passes.training import Lookahead, train_pass
from alto_exec.profiling.correctness import (
    Adapter,
    Outcome,
    cast,
    plain,
    random_adapter,
    require_as_exact,
    wider,
)
from alto_exec.profiling.session import checked
from alto_exec.profiling.stopwatch import median_seconds
from alto_exec.profiling.synthetic import (
    config_of,
    equal_jobs,
    random_model,
    random_samples,
    residents,
    shape_of,
)
from alto_exec.profiling.this_machine import this_machine
from alto_kernels.ahead import compiled_ahead
from alto_policy.types import Task, TaskId
from alto_runs.profile import Machine, StepRow, Trained, dump_rows
from experiments.steps.by_lorafusion import LoRAFusion, with_one_linear_for_attention
from experiments.steps.by_mlora import MLoRA
from experiments.steps.pass_trace import seconds_in_a_row
from experiments.steps.peers import Step
from experiments.steps.throughput import LOSSES_AGREE, RANK, measured

__all__ = ["MEASURED", "Case", "Given", "Trainer", "case_of", "first_losses", "multi_adapter"]

_DTYPE = torch.bfloat16
_CHECKED_JOBS = 2
_WARM_UPS = 3  # compiled, recorded, replayed
_IMPORTED_LATER = ("transformers.models.llama", "peft", "liger_kernel.transformers")
_ROWS_AT_ONCE = 4  # whose logits there is room for


@dataclass(frozen=True, slots=True)
class Case:
    """Equal jobs of rank 16."""

    jobs: int
    batch_size: int
    length: int
    seconds: float = 2.0  # of our passes in a row
    recompute: bool = False  # activations are computed again; of mLoRA alone


@dataclass(frozen=True, slots=True)
class Given:
    """What a process is to measure."""

    model: str
    cases: tuple[Case, ...]
    folder: Path | None  # with a peer's code
    rows: Path  # to which they are added

    def write(self, row: StepRow) -> None:
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(dump_rows([row]))
        again = ", activations computed again" if row.recompute else ""
        print(
            f"{row.model.name} {row.kernels}: {row.jobs} jobs of {row.batch_size} x {row.length} "
            f"tokens{again}: {row.seconds * 1e3:.1f} ms, {row.tokens / row.seconds:,.0f} tokens/s, "
            f"{(row.peak_bytes or 0) / 1e9:.1f} GB",
            flush=True,
        )


class Trainer(Protocol):
    """Several adapters of a peer's in one model."""

    def begin_anew(self) -> None: ...

    def step_of(self, tokens_JbL: Tensor) -> Step: ...

    def outcomes(self, adapters: Sequence[Adapter], samples: Sequence[Sample]) -> list[Outcome]: ...


def ours(given: Given) -> None:
    """Passes in a row as an executor makes them, the next one laid out meanwhile."""
    device, config = torch.device("cuda"), config_of(given.model)
    backbone, machine = checked(config, device, _DTYPE)
    assert isinstance(backbone, Decoder)
    _tell(machine)
    most = equal_jobs(max(case.jobs for case in given.cases), rank=RANK, batch_size=1)
    task = Task(id=TaskId("steps"), jobs=most, backbone=given.model, max_length=1)
    compile_passes(backbone, _bank(backbone), task)
    for case in given.cases:
        bank = _bank(backbone)
        here = residents(equal_jobs(case.jobs, rank=RANK, batch_size=case.batch_size), bank)
        data = random_samples(2 * case.batch_size, case.length, config.vocab_size)
        work = partial(train_pass, backbone, bank, data, here, ahead=Lookahead())
        with _telling(given, case):
            for _ in range(_WARM_UPS):
                work()
            times, card = seconds_in_a_row(work, case.seconds)
            given.write(_row(given, machine, "alto-triton", case, median(times)))
            few, told = max(1, len(times) // 10), "; ".join(card[:: len(card) // 3 or 1])
            print(
                f"  {len(times)} passes, the first tenth {1e3 * median(times[:few]):.1f} ms, the "
                f"last {1e3 * median(times[-few:]):.1f}; {told}",
                flush=True,
            )


def lorafusion(given: Given) -> None:
    assert given.folder is not None
    folder, length = given.folder, given.cases[0].length
    jobs = max(case.jobs for case in given.cases)

    def made(model: Any) -> LoRAFusion:
        theirs = LoRAFusion(folder, model, jobs, RANK)
        rows = torch.zeros(5, 1, length, dtype=torch.long, device=model.device)
        with compiled_ahead(len(os.sched_getaffinity(0))):
            theirs.launch(rows)  # four adapters and one
        return theirs

    prepared = partial(with_one_linear_for_attention, folder, length=length)
    multi_adapter(given, "lorafusion", made, prepared, torch.device("cuda"))


def mlora(given: Given) -> None:
    assert given.folder is not None
    jobs = max(case.jobs for case in given.cases)
    make = partial(MLoRA, given.folder, jobs=jobs, rank=RANK)
    multi_adapter(given, "mlora", make, None, torch.device("cuda"))


def multi_adapter(
    given: Given,
    kernels: str,
    make: Callable[[Any], Trainer],
    prepare: Callable[[Any], object] | None,
    device: torch.device,
) -> None:
    """Raises UserError where losses or gradients are wrong, SystemExit where a first loss is."""
    config = config_of(given.model)
    model = random_model(config, device, _DTYPE)
    rows = max(case.jobs * case.batch_size for case in given.cases)
    samples = random_samples(rows, given.cases[0].length, config.vocab_size)
    tokens = torch.tensor([sample.tokens for sample in samples], device=device)
    expected = first_losses(model, tokens)
    if prepare is not None:
        prepare(model)
    few = samples[:_CHECKED_JOBS]
    adapters = [random_adapter(model, seed, RANK) for seed in range(len(few))]
    torchs = [plain(model, a, sample) for a, sample in zip(adapters, few, strict=True)]
    cast(model, wider(_DTYPE))
    exact = [plain(model, a, sample) for a, sample in zip(adapters, few, strict=True)]
    cast(model, _DTYPE)
    trainer = make(model)
    error = require_as_exact(trainer.outcomes(adapters, few), torchs, exact, _DTYPE)
    machine = this_machine(
        device,
        "experiments/steps/together.py: median of whole steps with AdamW, random weights; errors "
        f"of losses and gradients against {wider(_DTYPE)} at most {error:.2f} of plain PyTorch's",
    )
    _tell(machine)
    for case in given.cases:
        with _telling(given, case):
            count = case.jobs * case.batch_size
            if isinstance(trainer, MLoRA):
                trainer.recompute = case.recompute
            trainer.begin_anew()  # for a loss that is known
            step = trainer.step_of(tokens[:count].view(case.jobs, case.batch_size, -1))
            first, right = float(step()), float(expected[:count].mean())
            if not abs(first / right - 1) <= LOSSES_AGREE:
                raise SystemExit(f"{kernels}: first loss {first}, expected {right}: no figures")
            seconds = median_seconds(step, device, repeats=5, warm_up=1)
            given.write(_row(given, machine, kernels, case, seconds))


def first_losses(model: Any, tokens: Tensor) -> Tensor:
    """Of each sequence, by transformers' own model."""
    with torch.no_grad():
        losses = []
        for rows in tokens.split(_ROWS_AT_ONCE):
            logits = model(input_ids=rows).logits[:, :-1].float().flatten(0, 1)
            each = cross_entropy(logits, rows[:, 1:].flatten(), reduction="none")
            losses.append(each.view(len(rows), -1).mean(1))
        return torch.cat(losses)


def one_model(given: Given, *, kernels: str) -> None:
    """One adapter of PEFT's, or the frozen backbone."""
    config = config_of(given.model)
    shape = shape_of(config, given.model)
    machine = this_machine(
        torch.device("cuda"), "experiments/steps/together.py: median of whole steps, random weights"
    )
    for case in given.cases:
        with _telling(given, case):
            size = (case.batch_size, case.length)
            given.write(measured(kernels, config, shape, machine, size))


def _bank(backbone: Decoder) -> AdapterBank:
    return AdapterBank(backbone.shapes, backbone.device, rows=0, dtype=backbone.dtype)


def _tell(machine: Machine) -> None:
    print(f"{machine.gpu}, driver {machine.driver}: {machine.source}", flush=True)


@contextmanager
def _telling(given: Given, case: Case) -> Iterator[None]:
    """Memory that runs out is told, and the next case begins with all that there is."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        yield
    except torch.OutOfMemoryError:
        size = f"{case.jobs} jobs of {case.batch_size} x {case.length} tokens"
        print(f"{given.model}: {size}: out of memory", flush=True)


def _row(given: Given, machine: Machine, kernels: str, case: Case, seconds: float) -> StepRow:
    return StepRow(
        machine=machine,
        model=shape_of(config_of(given.model), given.model),
        dtype=str(_DTYPE).removeprefix("torch."),
        kernels=kernels,
        trained=Trained.LORA,
        recompute=case.recompute,
        jobs=case.jobs,
        rank=RANK,
        batch_size=case.batch_size,
        length=case.length,
        seconds=seconds,
        peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    )


MEASURED: Mapping[str, Callable[[Given], None]] = {
    "alto": ours,
    "lorafusion": lorafusion,
    "mlora": mlora,
    "peft": partial(one_model, kernels="peft"),
    "frozen-compiled": partial(one_model, kernels="frozen-compiled"),
    "frozen-liger": partial(one_model, kernels="frozen-liger"),
}


def case_of(text: str) -> Case:
    """JOBSxBATCHxLENGTH, then perhaps @SECONDS and +again."""
    sizes, _, again = text.partition("+")
    sizes, _, seconds = sizes.partition("@")
    jobs, batch_size, length = map(int, sizes.split("x"))
    case = Case(jobs, batch_size, length, recompute=again == "again")
    return replace(case, seconds=float(seconds)) if seconds else case


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("system", choices=MEASURED)
    parser.add_argument("model")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="with the peer's code")
    parser.add_argument("--cases", nargs="+", type=case_of, required=True)
    options = parser.parse_args()
    for name in _IMPORTED_LATER:
        with suppress(ImportError):  # whoever needs it tells
            import_module(name)
    if sys.stdin.readline():
        given = Given(options.model, tuple(options.cases), options.folder, options.rows)
        MEASURED[options.system](given)


if __name__ == "__main__":
    main()
