"""Which constants of the narrow kernels are fastest on this card.

    PYTHONPATH=kernels python -m bench.launch_constants --model 1B --batch "K32 r16" --minutes 4

One constant after another, its values in turn beside the value it has; the best one is kept while
the next constant is tried. What is printed is to be written into the kernels by hand.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, log
from types import ModuleType

import torch
from triton.errors import TritonError

from alto_kernels.lora_linear import fused
from alto_kernels.lora_linear.kernel import dy_pass, outer
from alto_kernels.lora_linear.kernel import shrink as shrink_module
from bench.lora_cases import BATCHES, SHAPES, Operands, operands
from bench.lora_linear import error_ratio
from bench.lora_peers import PEERS, Run
from bench.timing import medians

_GAIN = 0.002  # of the frozen linears' time; less is noise
_ROUNDS = 15


@dataclass(frozen=True)
class Trial:
    module: ModuleType
    constant: str
    values: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.module.__name__.rpartition('.')[2]}.{self.constant}"

    @property
    def now(self) -> int:
        return int(getattr(self.module, self.constant))

    def set(self, value: int) -> None:
        setattr(self.module, self.constant, value)

    @contextmanager
    def at(self, value: int) -> Iterator[None]:
        before = self.now
        self.set(value)
        try:
            yield
        finally:
            self.set(before)


TRIALS = (
    Trial(fused, "_ONE_PASS_RANK", (0, 16, 32, 64)),
    Trial(outer, "_STAGES", (2, 3, 4, 5)),
    Trial(outer, "_WARPS", (4, 8)),
    Trial(outer, "_BLOCK_T", (32, 64, 128)),
    Trial(outer, "_BLOCK_C", (64, 128, 256)),
    Trial(outer, "_MAX_BLOCK_J", (32, 64, 128)),
    Trial(outer, "_MIN_PROGRAMS", (0, 264, 512, 1024, 2048)),
    Trial(shrink_module, "_STAGES", (3, 4, 5, 6)),
    Trial(shrink_module, "_WARPS", (2, 4, 8)),
    Trial(shrink_module, "_BLOCK_T", (16, 32, 64, 128)),
    Trial(shrink_module, "_BLOCK_I", (64, 128, 256)),
    Trial(shrink_module, "_MAX_BLOCK_J", (32, 64, 128)),
    Trial(dy_pass, "_STAGES", (2, 3, 4)),
    Trial(dy_pass, "_WARPS", (4, 8)),
    Trial(dy_pass, "_BLOCK_T", (16, 32, 64)),
    Trial(dy_pass, "_BLOCK_C", (256, 512)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    (batch,) = (batch for batch in BATCHES if batch.name == arguments.batch)
    cases = [
        operands(shape, batch, torch.device("cuda"))
        for shape in SHAPES
        if shape.model == arguments.model
    ]
    while sum(improve(trial, cases) for trial in TRIALS if time.monotonic() < end):
        pass
    exactness = max(error_ratio(case) for case in cases)
    found = ", ".join(f"{trial.name} {trial.now}" for trial in TRIALS)
    print(f"error {exactness:.2f} of PyTorch's own; {found}")


def improve(trial: Trial, cases: list[Operands]) -> bool:
    """Keep the value with which the LoRA linear is fastest; whether that is another one."""
    means: dict[int, float] = {}
    for value in dict.fromkeys((trial.now, *trial.values)):
        try:
            with trial.at(value):
                for case in cases:
                    PEERS["ours"](case)()
        except (RuntimeError, ValueError, TritonError) as error:
            print(f"{trial.name} {value} does not run: {str(error).splitlines()[0][:80]}")
        else:
            means[value] = 0.0
    for case in cases:
        runs = {str(value): _run_at(trial, value, PEERS["ours"](case)) for value in means}
        times = medians(runs | {"frozen": PEERS["frozen"](case)}, _ROUNDS)
        for value in means:
            means[value] += log(times[str(value)] / times["frozen"]) / len(cases)
    ratios = {value: exp(mean) for value, mean in means.items()}
    best, before = min(ratios, key=ratios.__getitem__), trial.now
    if ratios[best] < ratios[before] - _GAIN:
        trial.set(best)
    line = "  ".join(f"{value}: {ratio:.3f}" for value, ratio in sorted(ratios.items()))
    print(f"{trial.name:24} {line}   -> {trial.now}", flush=True)
    return trial.now != before


def _run_at(trial: Trial, value: int, run: Run) -> Callable[[], object]:
    def at_value() -> object:
        with trial.at(value):
            return run()

    return at_value


if __name__ == "__main__":
    main()
