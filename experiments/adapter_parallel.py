"""Tokens a second on several GPUs (paper, figure 13): adapter parallelism, copies, FSDP2, DDP.

    torchrun --nproc-per-node 4 experiments/adapter_parallel.py --out rows.jsonl --seconds 420

Random weights: speed only. First the losses of jobs on all ranks are held against those of the
same jobs on one, then the points are measured in order of importance until the time is up; one that
does not fit is told. Jobs have rank 16 on all linears. The peers train one job after another, their
batch filled up to the ranks (see `parallel_peers`). Only tokens that a job asked for are counted.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from alto_exec.bank import AdapterBank
from alto_exec.decoder import Decoder
from alto_exec.parallel.ranks import Ranks, join_launched_ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.profiling.synthetic import equal_jobs, random_samples
from alto_exec.residence import Progress, Resident
from alto_exec.step import train_pass
from alto_policy.types import Job
from alto_runs.versions import versions
from experiments.parallel_peers import PeftJob, peft_model
from experiments.random_backbone import SHAPES, with_layers_made_in_turn

RANK = 16
REPEATS, WARM_UPS = 5, 2
POINT_SECONDS = 20.0  # that a point takes at most, all repeats together
MOST_TOKENS = {"1b": 16384, "8b": 8192, "32b": 2048, "70b": 1024}  # of one pass on one GPU
CHECKED_STEPS = 3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-3}  # relative, of a loss


@dataclass(frozen=True, slots=True)
class Point:
    jobs: int
    batch_size: int
    length: int

    @property
    def tokens(self) -> int:
        return self.jobs * self.batch_size * self.length


# What the bars are of first: the paper's peak, and how far from perfect scaling.
PEAK, SCALING = Point(8, 2, 256), Point(32, 1, 1024)
SHORT = (PEAK, Point(8, 1, 256), Point(8, 4, 256), Point(8, 8, 256))
POINTS: dict[str, tuple[Point, ...]] = {
    "adapter-parallel": (PEAK, SCALING, Point(32, 1, 256), *SHORT[1:], Point(8, 2, 1024)),
    "fsdp2-peft": (*SHORT, Point(8, 2, 1024), Point(8, 1, 1024)),
    "one-gpu": (SCALING, Point(32, 1, 256), PEAK),
    "copies": (PEAK, SCALING, Point(32, 1, 256)),
    "ddp-peft": (PEAK, Point(8, 8, 256)),
}


@dataclass(slots=True)
class Bench:
    """What all measurements share."""

    ranks: Ranks
    dtype: torch.dtype
    end: float  # on the clock of the leader
    out: Path | None

    def has_time(self, seconds: float) -> bool:
        """The leader's clock decides."""
        late = self.ranks.is_leader and time.monotonic() + seconds > self.end
        return not self.ranks.most(int(late))

    def write(self, **row: Any) -> None:
        if self.ranks.is_leader:
            line = json.dumps(row)
            print(line, flush=True)
            if self.out is not None:
                with self.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")

    def median_seconds(self, step: Callable[[], object], repeats: int = REPEATS) -> float:
        """Of a step that all ranks make; the slowest tells."""
        seconds: list[float] = []
        begin = time.monotonic()
        for number in range(WARM_UPS + repeats):
            self.ranks.most(0)
            start = time.perf_counter()
            step()
            if self.ranks.device.type == "cuda":
                torch.cuda.synchronize()
            micros = self.ranks.most(int(1e6 * (time.perf_counter() - start)))
            seconds.append(micros / 1e6)
            late = time.monotonic() - begin > POINT_SECONDS / 2
            if number >= WARM_UPS and self.ranks.most(int(late)):
                break
        return statistics.median(seconds[WARM_UPS:])

    def peak_gb(self) -> float:
        if self.ranks.device.type != "cuda":
            return 0.0
        return self.ranks.most(torch.cuda.max_memory_allocated()) / 1e9


class Trainer:
    """Our jobs of a point on this rank, in passes that fit."""

    def __init__(
        self, model: Decoder | ShardedDecoder, shape: str, point: Point, mine: Sequence[Job]
    ) -> None:
        self._model = model
        rows = max(1, len(mine)) * RANK
        self.bank = AdapterBank(model.shapes, model.device, rows=rows, dtype=model.dtype)
        self.residents = fresh_residents(mine, self.bank)
        self._samples = random_samples(64, point.length, SHAPES[shape]["vocab_size"])
        at_once = max(1, MOST_TOKENS.get(shape, 1024) // (point.batch_size * point.length))
        self._parts = [
            self.residents[first : first + at_once]
            for first in range(0, len(self.residents), at_once)
        ]

    def step(self) -> None:
        """One optimizer step of every job."""
        try:
            for part in self._parts:
                train_pass(self._model, self.bank, self._samples, part)
        finally:
            settle(self._model)


def fresh_residents(jobs: Sequence[Job], bank: AdapterBank) -> list[Resident]:
    """Adapters that every rank would draw alike."""
    slots = [bank.join(bank.fresh(j.hyperparameters.rank, j.hyperparameters.seed)) for j in jobs]
    return [Resident(job, slot, Progress()) for job, slot in zip(jobs, slots, strict=True)]


def settle(model: Decoder | ShardedDecoder) -> None:
    """The passes that other ranks still have to make, whatever became of this one's."""
    if isinstance(model, ShardedDecoder):
        model.settle()


def losses_of(residents: Sequence[Resident]) -> dict[str, float]:
    return {r.job.id: r.progress.loss_sum for r in residents}


def dealt(jobs: Sequence[Job], ranks: Ranks) -> list[Job]:
    """Jobs of one size: in turns."""
    return list(jobs[ranks.rank :: ranks.size])


def mine_of(method: str, point: Point, ranks: Ranks) -> list[Job]:
    jobs = list(equal_jobs(point.jobs, rank=RANK, batch_size=point.batch_size))
    if method == "one-gpu":
        return jobs if ranks.is_leader else []
    return dealt(jobs, ranks)


def check(bench: Bench, shape: str) -> None:
    """The losses of eight jobs over some steps: sharded over all ranks, and whole on the first."""
    point = Point(8, 1, 64)
    jobs = list(equal_jobs(point.jobs, rank=RANK, batch_size=point.batch_size))
    ranks = bench.ranks
    found: dict[str, float] = {}
    for model, mine in (
        (sharded(bench, shape), dealt(jobs, ranks)),
        (whole(bench, shape), jobs if ranks.is_leader else []),
    ):
        trainer = Trainer(model, shape, point, mine)
        for _ in range(CHECKED_STEPS):
            trainer.step()
        told = [json.loads(text) for text in ranks.hear(json.dumps(losses_of(trainer.residents)))]
        merged = {job: loss for one in told for job, loss in one.items()}
        if not found:
            found = merged
        del model, trainer
    worst = max(abs(merged[job] / found[job] - 1) for job in merged)
    bench.write(
        check="losses of jobs on all ranks against one rank", shape=shape, jobs=len(merged),
        steps=CHECKED_STEPS, worst_relative_difference=worst, allowed=TOLERANCE[bench.dtype],
    )  # fmt: skip
    assert found.keys() == merged.keys()
    assert worst <= TOLERANCE[bench.dtype], "the ranks do not train what one rank trains"


def sharded(bench: Bench, shape: str) -> ShardedDecoder:
    model = with_layers_made_in_turn(shape, bench.ranks.device, bench.dtype)
    return ShardedDecoder(model, bench.ranks)


def whole(bench: Bench, shape: str) -> Decoder:
    return Decoder(with_layers_made_in_turn(shape, bench.ranks.device, bench.dtype))


def attempt(bench: Bench, act: Callable[[], object]) -> bool:
    """Whether it fits on every rank."""
    out_of_memory = False
    try:
        act()
    except torch.OutOfMemoryError:
        out_of_memory = True
    return not bench.ranks.most(int(out_of_memory))


def measure_ours(bench: Bench, shape: str, method: str, points: Sequence[Point]) -> None:
    """All points on one backbone: in shards, in copies, or on the leader alone."""
    ranks = bench.ranks
    is_sharded = method == "adapter-parallel"
    model = sharded(bench, shape) if is_sharded else whole(bench, shape)
    for point in points:
        if not bench.has_time(POINT_SECONDS):
            return
        forget_peak(ranks.device)
        row: dict[str, Any] = {"shape": shape, "method": method, **asdict(point)}
        trainers: list[Trainer] = []

        def begin(point: Point = point, trainers: list[Trainer] = trainers) -> None:
            trainers.append(Trainer(model, shape, point, mine_of(method, point, ranks)))
            trainers[0].step()

        if not attempt(bench, begin):
            bench.write(**row, fits=False)
            continue
        (trainer,) = trainers
        if ranks.is_leader:
            row["first_loss"] = trainer.residents[0].progress.loss_sum
        seconds = bench.median_seconds(trainer.step)
        row |= {"seconds": seconds, "tokens_per_second": point.tokens / seconds}
        row |= {"ranks": 1 if method == "one-gpu" else ranks.size, "peak_gb": bench.peak_gb()}
        if isinstance(model, ShardedDecoder):
            row |= communication(bench, model, trainer, seconds)
        bench.write(**row)


def communication(
    bench: Bench, model: ShardedDecoder, trainer: Trainer, seconds: float
) -> dict[str, float]:
    """Bytes that come in with a step, and the time by which a step without them is shorter."""
    layers = model.layers
    before = layers.gathers
    trainer.step()
    gathers = layers.gathers - before
    fetch = layers._fetch
    layers._fetch = lambda number: None  # type: ignore[method-assign]  # what is there is computed with
    silent = bench.median_seconds(trainer.step, repeats=3)
    layers._fetch = fetch  # type: ignore[method-assign]
    received = gathers * layers.bytes_per_gather
    return {"gathered_bytes": received, "exposed_seconds": seconds - silent}


def measure_peers(bench: Bench, shape: str, method: str, points: Sequence[Point]) -> None:
    """A step of one job; the jobs of a point are trained one after another."""
    ranks = bench.ranks
    wrap = method.removesuffix("-peft")
    model: Any = None

    def load() -> None:
        nonlocal model
        model = peft_model(shape, RANK, ranks.device, bench.dtype, wrap)

    if not attempt(bench, load):
        bench.write(shape=shape, method=method, fits=False)
        return
    for point in points:
        if not bench.has_time(POINT_SECONDS):
            return
        forget_peak(ranks.device)
        data = random_samples(64, point.length, SHAPES[shape]["vocab_size"])
        job = PeftJob(model, data, point.batch_size)
        row: dict[str, Any] = {"shape": shape, "method": method, **asdict(point)}
        if not attempt(bench, job.step):
            bench.write(**row, fits=False)
            continue
        seconds = bench.median_seconds(job.step)
        share = -(-point.batch_size // ranks.size) * ranks.size
        bench.write(
            **row, seconds=point.jobs * seconds, ranks=ranks.size, peak_gb=bench.peak_gb(),
            tokens_per_second=point.batch_size * point.length / seconds,
            padded_to=share, **({} if point != points[0] else {"first_loss": job.first_loss()}),
        )  # fmt: skip


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def facts(ranks: Ranks) -> dict[str, object]:
    known: dict[str, object] = {"ranks": ranks.size, **versions("torch", "transformers", "peft")}
    if ranks.device.type == "cuda":
        known["gpu"] = torch.cuda.get_device_name()
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["8b", "1b", "32b"])
    parser.add_argument("--methods", nargs="*", choices=POINTS, default=list(POINTS))
    parser.add_argument("--points", type=int, default=9, help="so many of each method at most")
    parser.add_argument("--check", choices=SHAPES, help="shape of the comparison of losses")
    parser.add_argument("--seconds", type=float, default=420.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ranks = join_launched_ranks(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    bench = Bench(ranks, dtype, end, options.out)
    bench.write(**facts(ranks))
    check(bench, options.check or options.shapes[-1])
    for shape, method in plan(options.shapes, options.methods):
        if not bench.has_time(POINT_SECONDS):
            break
        points = POINTS[method][: options.points]
        start = time.monotonic()
        if method.endswith("-peft"):
            measure_peers(bench, shape, method, points)
        else:
            measure_ours(bench, shape, method, points)
        bench.write(section=f"{shape} {method}", wall_seconds=time.monotonic() - start)
        forget_peak(ranks.device)
    ranks.leave()


def plan(shapes: Sequence[str], methods: Sequence[str]) -> list[tuple[str, str]]:
    """What the bars are of comes first."""
    names = list(POINTS)
    sections = [(shape, method) for shape in shapes for method in names[:3]]
    sections += [(shape, method) for method in names[3:] for shape in shapes]
    return [(shape, method) for shape, method in sections if method in methods]


if __name__ == "__main__":
    main()
