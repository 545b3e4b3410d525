"""Tokens a second on several GPUs (paper, figure 13): adapter parallelism, copies, FSDP2, DDP.

    torchrun --nproc-per-node 4 experiments/cards/adapter_parallel.py --out rows.jsonl --seconds 420

`gathered`, `copied` and `travelling` are adapter parallelism that goes this way in all passes, the
same `-launched` that records none of them; `adapter-parallel` goes the cheapest. Random weights:
speed only. First the losses of jobs on all ranks, each way, are held against those of the same jobs
on one, then the points are measured in order of importance until the time is up; one that does not
fit is told. Jobs have rank 16 on all linears. The peers train one job after another, their batch
filled up to the ranks (see `parallel_peers`). Only tokens that a job asked for are counted.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.parallel.ranks import Ranks, join_launched_ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.training import train_pass
from alto_exec.profiling.synthetic import config_of, equal_jobs, random_samples, shape_of
from alto_exec.profiling.this_machine import this_machine
from alto_policy.executors.exchange import Way
from alto_policy.types import Job
from alto_runs.profile import GangRow, Machine, dump_rows
from alto_runs.versions import versions
from experiments.backbones.random_backbone import with_layers_made_in_turn
from experiments.cards.parallel_peers import PeftJob, peft_model
from experiments.cards.parallel_points import POINTS, SHARDS, Point, Shards, plan, points_of

MODELS = ["Llama-3.1-8B", "Llama-3.2-1B", "Qwen2.5-32B"]
RANK = 16
REPEATS, WARM_UPS = 5, 1  # after a first step that compiles
MOST_TOKENS = {  # of one pass on one GPU
    "Llama-3.2-1B": 16384, "Llama-3.1-8B": 8192, "Qwen2.5-32B": 2048, "Llama-3.1-70B": 1024,
}  # fmt: skip
CHECKED_STEPS = 3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-3}  # relative, of a loss


@dataclass(slots=True)
class Bench:
    """What all measurements share."""

    ranks: Ranks
    dtype: torch.dtype
    end: float  # on the clock of the leader
    machine: Machine
    out: Path | None
    whole_layers: int  # of a sharded backbone
    point_seconds: float  # that a point takes at most, all repeats together

    def has_time(self) -> bool:
        """For another point. The leader's clock decides."""
        late = self.ranks.is_leader and time.monotonic() + self.point_seconds > self.end
        return not self.ranks.most(int(late))

    def tell(self, **facts: Any) -> None:
        if self.ranks.is_leader:
            print(json.dumps(facts), flush=True)

    def keep(self, name: str, method: str, point: Point, seconds: float, **found: Any) -> None:
        """A measured point, as a row of a profile; what is said beside it is only told."""
        row = GangRow(
            machine=self.machine, model=shape_of(config_of(name), Path(name).name),
            dtype=str(self.dtype).removeprefix("torch."),
            method=method, gpus=1 if method == "one-gpu" else self.ranks.size, rank=RANK,
            jobs=point.jobs, batch_size=point.batch_size, length=point.length, seconds=seconds,
            peak_bytes=self.peak_bytes(), received_bytes=found.get("received_bytes"),
            exposed_seconds=found.get("exposed_seconds"), ways=found.get("ways"),
            is_replayed=found.get("is_replayed", False),
        )  # fmt: skip
        speed = row.tokens_per_second
        self.tell(
            model=name, method=method, **asdict(point), seconds=seconds, tokens_per_second=speed,
            peak_bytes=row.peak_bytes, **found,
        )  # fmt: skip
        if self.ranks.is_leader and self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write(dump_rows([row]))

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
            late = time.monotonic() - begin > self.point_seconds / 2
            if number >= WARM_UPS and self.ranks.most(int(late)):
                break
        return statistics.median(seconds[WARM_UPS:])

    def peak_bytes(self) -> int | None:
        if self.ranks.device.type != "cuda":
            return None
        return self.ranks.most(torch.cuda.max_memory_allocated())


class Trainer:
    """Our jobs of a point on this rank, in passes that fit."""

    def __init__(
        self, model: Decoder | ShardedDecoder, name: str, point: Point, mine: Sequence[Job]
    ) -> None:
        self._model = model
        rows = max(1, len(mine)) * RANK
        self.bank = AdapterBank(model.shapes, model.device, rows=rows, dtype=model.dtype)
        self.residents = residents_of(mine, self.bank)
        self._samples = random_samples(64, point.length, config_of(name).vocab_size)
        at_once = max(1, MOST_TOKENS.get(name, 1024) // (point.batch_size * point.length))
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


def settle(model: Decoder | ShardedDecoder) -> None:
    """The passes that other ranks still have to make, whatever became of this one's."""
    if isinstance(model, ShardedDecoder):
        model.settle()


def residents_of(jobs: Sequence[Job], bank: AdapterBank) -> list[Resident]:
    """With the adapters that PEFT begins with as well."""
    fresh = [bank.fresh(job.hyperparameters.rank, job.hyperparameters.seed) for job in jobs]
    slots = [bank.join(state) for state in fresh]
    return [Resident(job, slot, Progress()) for job, slot in zip(jobs, slots, strict=True)]


def losses_of(residents: Sequence[Resident]) -> dict[str, float]:
    return {r.job.id: r.progress.loss_sum for r in residents}


def dealt(jobs: Sequence[Job], ranks: Ranks) -> list[Job]:
    """Jobs of one size: in turns."""
    return list(jobs[ranks.rank :: ranks.size])


def mine_of(method: str, point: Point, ranks: Ranks) -> Sequence[Job]:
    jobs = equal_jobs(point.jobs, rank=RANK, batch_size=point.batch_size)
    if method == "one-gpu":
        return jobs if ranks.is_leader else []
    return dealt(jobs, ranks)


def check(bench: Bench, name: str) -> None:
    """The losses of eight jobs over some steps: in shards either way, and whole on the first."""
    point = Point(8, 1, 64)
    jobs = equal_jobs(point.jobs, rank=RANK, batch_size=point.batch_size)
    ranks = bench.ranks

    def losses(model: Decoder | ShardedDecoder, mine: Sequence[Job]) -> dict[str, float]:
        trainer = Trainer(model, name, point, mine)
        for _ in range(CHECKED_STEPS):
            trainer.step()
        told = [json.loads(text) for text in ranks.hear(json.dumps(losses_of(trainer.residents)))]
        return {job: loss for one in told for job, loss in one.items()}

    ways = [way for way in Way if way is not Way.COPIED or ranks.reach_one_another]
    found = {way: losses(sharded(bench, name, Shards(way)), dealt(jobs, ranks)) for way in ways}
    expected = losses(whole(bench, name), jobs if ranks.is_leader else [])
    for way, merged in found.items():
        assert merged.keys() == expected.keys()
        worst = max(abs(merged[job] / expected[job] - 1) for job in merged)
        bench.tell(
            check="losses of jobs on all ranks against one rank", model=name, way=way,
            jobs=len(merged), steps=CHECKED_STEPS, worst_relative_difference=worst,
            allowed=TOLERANCE[bench.dtype],
        )  # fmt: skip
        assert worst <= TOLERANCE[bench.dtype], f"the ranks train something else, {way}"


def sharded(bench: Bench, name: str, shards: Shards) -> ShardedDecoder:
    model = with_layers_made_in_turn(config_of(name), bench.ranks.device, bench.dtype)
    return ShardedDecoder(
        model,
        bench.ranks,
        whole_layers=bench.whole_layers,
        way=shards.way,
        records=shards.records,
    )


def whole(bench: Bench, name: str) -> Decoder:
    return Decoder(with_layers_made_in_turn(config_of(name), bench.ranks.device, bench.dtype))


def attempt(bench: Bench, act: Callable[[], object]) -> bool:
    """Whether it fits on every rank."""
    out_of_memory = False
    try:
        act()
    except torch.OutOfMemoryError:
        out_of_memory = True
    return not bench.ranks.most(int(out_of_memory))


def measure_ours(bench: Bench, name: str, method: str, points: Sequence[Point]) -> None:
    """All points on one backbone: in shards, in copies, or on the leader alone."""
    ranks = bench.ranks

    def make() -> Decoder | ShardedDecoder:
        return sharded(bench, name, SHARDS[method]) if method in SHARDS else whole(bench, name)

    models: list[Decoder | ShardedDecoder] = []
    if SHARDS.get(method, Shards()).way is Way.COPIED and not ranks.reach_one_another:
        bench.tell(model=name, method=method, reaches=False)
        return
    if not attempt(bench, lambda: models.append(make())):
        bench.tell(model=name, method=method, fits=False)
        return
    (model,) = models
    for point in points:
        if not bench.has_time():
            return
        forget_peak(ranks.device)
        trainers: list[Trainer] = []

        def begin(point: Point = point, trainers: list[Trainer] = trainers) -> None:
            trainers.append(Trainer(model, name, point, mine_of(method, point, ranks)))
            trainers[0].step()

        if not attempt(bench, begin):
            bench.tell(model=name, method=method, **asdict(point), fits=False)
            continue
        (trainer,) = trainers
        found: dict[str, Any] = {}
        if ranks.is_leader:
            found["first_loss"] = trainer.residents[0].progress.loss_sum
        replayed = model.replayed.passes
        seconds = bench.median_seconds(trainer.step)
        found["is_replayed"] = model.replayed.passes > replayed
        if isinstance(model, ShardedDecoder):
            found |= communication(bench, model, trainer, seconds)
        bench.keep(name, method, point, seconds, **found)


def communication(
    bench: Bench, model: ShardedDecoder, trainer: Trainer, seconds: float
) -> dict[str, Any]:
    """Bytes that come in with a step, and which ways its passes go; where it is weights that come,
    the time by which a step without them is shorter."""
    layers = model.layers
    before, passes = layers.received_bytes, dict(layers.passes)
    trainer.step()
    received = layers.received_bytes - before
    gone = [way for way in Way if layers.passes[way] > passes[way]]
    found: dict[str, Any] = {"received_bytes": received, "ways": "+".join(gone)}
    if Way.TRAVELLING not in gone:
        fetch = layers._fetch
        layers._fetch = lambda number: None  # type: ignore[method-assign]  # what is there is computed with
        model.passes.clear()
        silent = bench.median_seconds(trainer.step, repeats=3)
        layers._fetch = fetch  # type: ignore[method-assign]
        model.passes.clear()
        found["exposed_seconds"] = seconds - silent
    return found


def measure_peers(bench: Bench, name: str, method: str, points: Sequence[Point]) -> None:
    """A step of one job, measured once for any number of them: they train one after another."""
    ranks = bench.ranks
    measured: dict[tuple[int, int], float] = {}  # by batch size and length
    wrap = method.removesuffix("-peft")
    model: Any = None

    def load() -> None:
        nonlocal model
        model = peft_model(config_of(name), RANK, ranks.device, bench.dtype, wrap)

    if not attempt(bench, load):
        bench.tell(model=name, method=method, fits=False)
        return
    for point in points:
        if not bench.has_time():
            return
        found: dict[str, Any] = {}
        size = (point.batch_size, point.length)
        if size not in measured:
            forget_peak(ranks.device)
            data = random_samples(64, point.length, config_of(name).vocab_size)
            job = PeftJob(model, data, point.batch_size)
            if not attempt(bench, job.step):
                bench.tell(model=name, method=method, **asdict(point), fits=False)
                continue
            if not measured:  # later ones train on with the adapter of the first
                found["first_loss"] = job.first_loss()
            measured[size] = bench.median_seconds(job.step)
        seconds = point.jobs * measured[size]
        padded_to = -(-point.batch_size // ranks.size) * ranks.size
        bench.keep(name, method, point, seconds, padded_to=padded_to, **found)


def forget_peak(device: torch.device) -> None:
    gc.collect()  # a decoder and what it records know each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--models", nargs="*", default=MODELS, help="names of known shapes, or folders"
    )
    parser.add_argument("--methods", nargs="*", choices=POINTS, default=list(POINTS))
    parser.add_argument("--points", type=int, default=99, help="so many of each method at most")
    parser.add_argument(
        "--grid", action="store_true", help="then 8 and 32 jobs at all batch sizes and lengths"
    )
    parser.add_argument("--check", help="model of the comparison of losses; the last by default")
    parser.add_argument(
        "--whole-layers", type=int, default=0, help="of a sharded backbone, that are never sent"
    )
    parser.add_argument("--seconds", type=float, default=420.0)
    parser.add_argument("--point-seconds", type=float, default=20.0, help="of a point, at most")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ranks = join_launched_ranks(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    machine = this_machine(ranks.device, "experiments/cards/adapter_parallel.py")
    bench = Bench(
        ranks, dtype, end, machine, options.out, options.whole_layers, options.point_seconds
    )
    bench.tell(
        ranks=ranks.size,
        gpu=machine.gpu,
        whole_layers=options.whole_layers,
        **versions("torch", "transformers", "peft"),
    )
    check(bench, options.check or options.models[-1])
    for name, method in plan(options.models, options.methods):
        if not bench.has_time():
            break
        points = points_of(method, is_whole=options.grid)[: options.points]
        start = time.monotonic()
        if method.endswith("-peft"):
            measure_peers(bench, name, method, points)
        else:
            measure_ours(bench, name, method, points)
        bench.tell(section=f"{name} {method}", wall_seconds=time.monotonic() - start)
        forget_peak(ranks.device)
    ranks.leave()


if __name__ == "__main__":
    main()
