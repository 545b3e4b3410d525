"""Where the time of a whole training pass goes on this GPU, kernel by kernel.

    python -m experiments.steps.pass_trace --model Llama-3.1-8B --jobs 16 --length 512

Random weights: speed only. The pass is timed alone first, many in a row, beside the card's clock
and power as its driver tells them, and then recorded by PyTorch's profiler. Kernels may run beside
one another: their times are added up, and the time in which none runs is told apart.
"""

import argparse
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Sample
from alto_exec.passes.training import Lookahead, train_pass
from alto_exec.profiling.synthetic import config_of, equal_jobs, random_samples, residents
from experiments.backbones.random_backbone import with_layers_made_in_turn

__all__ = ["Launch", "Total", "busy_microseconds", "totals", "with_targets"]

_RANK, _SAMPLES = 16, 64
_WARM_UPS = 3
_NAME_WIDTH = 72
_CARD = "clocks.sm,power.draw,temperature.gpu"


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel on the device's own time line."""

    name: str
    start_microseconds: float
    microseconds: float

    @property
    def end_microseconds(self) -> float:
        return self.start_microseconds + self.microseconds


@dataclass(frozen=True, slots=True)
class Total:
    name: str
    launches: int
    microseconds: float


def totals(launches: Iterable[Launch]) -> list[Total]:
    """Of all launches of one name, the longest first."""
    found: dict[str, list[float]] = defaultdict(list)
    for launch in launches:
        found[launch.name].append(launch.microseconds)
    sums = [Total(name, len(times), sum(times)) for name, times in found.items()]
    return sorted(sums, key=lambda total: (-total.microseconds, total.name))


def busy_microseconds(launches: Iterable[Launch]) -> float:
    """In which at least one of them runs."""
    busy, end = 0.0, float("-inf")
    for launch in sorted(launches, key=lambda launch: launch.start_microseconds):
        busy += max(0.0, launch.end_microseconds - max(end, launch.start_microseconds))
        end = max(end, launch.end_microseconds)
    return busy


def recorded(work: Callable[[], object]) -> list[Launch]:
    """All that the device does for `work`."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        work()
        torch.cuda.synchronize()
    events = found.events() or ()
    return [
        Launch(event.name, event.time_range.start, event.time_range.elapsed_us())
        for event in events
        if event.device_type.name == "CUDA"
    ]


def seconds_in_a_row(work: Callable[[], object], seconds: float) -> tuple[list[float], list[str]]:
    """From the end of each run to that of the next, as an executor makes them: `work` waits for
    what it hands back, and not for what it leaves to the card behind that. And what the driver said
    of the card meanwhile."""
    query = ["nvidia-smi", f"--query-gpu={_CARD}", "--format=csv,noheader", "-lms", "500"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as card:
        work()
        ends = [time.perf_counter()]
        while ends[-1] - ends[0] < seconds:
            work()
            ends.append(time.perf_counter())
        torch.cuda.synchronize()
        card.terminate()
        told = card.stdout.read().splitlines() if card.stdout else []
    return [after - before for before, after in pairwise(ends)], told


def with_targets(samples: Sequence[Sample], share: float) -> list[Sample]:
    """The last of their tokens."""

    def of(sample: Sample) -> Sample:
        first = max(1, round((1 - share) * len(sample.tokens)))
        return replace(sample, is_target=tuple(i >= first for i in range(len(sample.tokens))))

    return [of(sample) for sample in samples]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a known shape, or a folder")
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10.0, help="of passes in a row")
    parser.add_argument("--targets", type=float, default=1.0, help="of a sequence's tokens")
    parser.add_argument("--optimizer-states", choices=("float32", "int8"), default="float32")
    parser.add_argument("--kernels", type=int, default=30, help="so many names are told")
    options = parser.parse_args()
    device, config = torch.device("cuda"), config_of(options.model)
    model = Decoder(with_layers_made_in_turn(config, device, torch.bfloat16))
    bank = AdapterBank(
        model.shapes,
        device,
        rows=options.jobs * _RANK,
        dtype=model.dtype,
        in_8_bits=options.optimizer_states == "int8",
    )
    jobs = equal_jobs(options.jobs, rank=_RANK, batch_size=options.batch_size)
    here = residents(jobs, bank)
    data = with_targets(
        random_samples(_SAMPLES, options.length, config.vocab_size), options.targets
    )
    ahead = Lookahead()

    def one_pass() -> int:
        return train_pass(model, bank, data, here, ahead=ahead)

    for _ in range(_WARM_UPS):
        tokens = one_pass()
    times, told = seconds_in_a_row(one_pass, options.seconds)
    tenth = max(1, len(times) // 10)
    print(
        f"{options.model}, {options.jobs} jobs of batch size {options.batch_size}, {tokens} tokens"
        f", {options.targets:.0%} of them targets, moments in {options.optimizer_states}, "
        f"on {torch.cuda.get_device_name()}: first tenth {1e3 * median(times[:tenth]):.1f} ms, "
        f"last tenth {1e3 * median(times[-tenth:]):.1f} ms, "
        f"{tokens / median(times):,.0f} tokens/s"
    )
    print(f"{_CARD}: {'; '.join(told[:: max(1, len(told) // 8)])}")
    show(recorded(one_pass), options.kernels)


def show(launches: Sequence[Launch], count: int) -> None:
    span = max(one.end_microseconds for one in launches) - launches[0].start_microseconds
    busy = busy_microseconds(launches)
    summed = sum(one.microseconds for one in launches)
    print(
        f"recorded: {span / 1e3:.1f} ms, {len(launches)} launches, busy for {busy / 1e3:.1f} ms, "
        f"kernels added up {summed / 1e3:.1f} ms"
    )
    for total in totals(launches)[:count]:
        print(
            f"{total.microseconds / 1e3:9.2f} ms {total.launches:6} x "
            f"{total.microseconds / total.launches:9.1f} us  {total.name[:_NAME_WIDTH]}"
        )


if __name__ == "__main__":
    main()
