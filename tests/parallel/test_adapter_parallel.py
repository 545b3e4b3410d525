"""The measurement of several GPUs runs on Gloo, at any number of ranks, with a tiny model."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from transformers import LlamaConfig

from alto_exec.backbones.decoder import Decoder
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_layers import ShardedLayers
from alto_exec.profiling.this_machine import this_machine
from alto_runs.profile import GangRow, read_profile
from experiments.cards import adapter_parallel
from experiments.cards.adapter_parallel import Bench, check, measure_ours, measure_peers
from experiments.cards.parallel_peers import peft_model
from experiments.cards.parallel_points import POINTS, Point, points_of
from tests.parallel.ranks_of_processes import outcomes

OURS, PEERS = (
    ("gathered", "travelling", "adapter-parallel", "copies", "one-gpu"),
    ("fsdp2-peft", "ddp-peft"),
)
POINT = Point(jobs=3, batch_size=3, length=12)  # two ranks fill a batch up
MORE = replace(POINT, jobs=POINT.jobs + 1)  # of the same size
LAYERS, WHOLE = 4, 1
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
FETCHED: list[int] = []  # layers, in a process that measures
fetch = ShardedLayers._fetch


@dataclass(slots=True)
class Counted(Bench):
    """A step takes a second for itself, and one for each layer that it gathers."""

    told: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, **facts: Any) -> None:
        self.told.append(facts)

    def median_seconds(self, step: Callable[[], object], repeats: int = 1) -> float:
        before = len(FETCHED)
        step()
        return 1.0 + len(FETCHED) - before


def bench_of(ranks: Ranks, out: Path, whole_layers: int) -> Counted:
    machine = this_machine(torch.device("cpu"), "test", commit="none")
    end = time.monotonic() + 1000
    return Counted(ranks, torch.float32, end, machine, out, whole_layers, point_seconds=1.0)


def counted_fetch(layers: ShardedLayers, number: int) -> None:
    before = layers.gathers
    fetch(layers, number)
    FETCHED.extend([number] * (layers.gathers - before))


def measure(out: str, ranks: Ranks, folder: Path) -> list[dict[str, Any]]:
    bench, model = bench_of(ranks, folder / out, WHOLE), str(folder.parent / "model")
    ShardedLayers._fetch = counted_fetch  # type: ignore[method-assign, assignment]  # in a process of its own
    check(bench, model)
    for method in OURS:
        measure_ours(bench, model, method, [POINT])
    for method in PEERS:
        measure_peers(bench, model, method, [MORE, POINT])
    return [facts for facts in bench.told if "first_loss" in facts]


@pytest.mark.parametrize("size", [1, 2])
def test_a_row_for_each_way(size: int, tmp_path: Path) -> None:
    config = LlamaConfig(**SMALL)
    config.save_pretrained(tmp_path / "model")
    told = outcomes(partial(measure, "rows.jsonl"), size, tmp_path / "ranks")[0]
    rows = read_profile(tmp_path / "ranks" / "rows.jsonl")
    found = {row.method: row for row in rows if isinstance(row, GangRow)}
    assert list(found) == [*OURS, *PEERS]
    assert found["one-gpu"].gpus == 1
    assert {found[method].gpus for method in found if method != "one-gpu"} == {size}
    gathered = found["gathered"]
    received = gathered.received_bytes
    assert received is not None
    # The layer that is not at hand, once forward and once back; the first pass has come before.
    layer = 4 * gathered.model.block_parameters / LAYERS
    gathers = 2 * (LAYERS - WHOLE - 2)
    assert received >= gathers * layer * (size - 1) / size
    assert received <= 1.1 * gathers * layer * (size - 1) / size
    # A step of a peer is one of each job; a step without its gathers is shorter by their time.
    seconds = {method: row.seconds for method, row in found.items()}
    assert {seconds[method] for method in PEERS} == {float(POINT.jobs)}
    of_more = [row.seconds for row in rows if isinstance(row, GangRow) and row.jobs == MORE.jobs]
    assert of_more == [float(MORE.jobs)] * len(PEERS)
    assert (seconds["copies"], seconds["gathered"]) == (1.0, 1.0 + gathers)
    assert (gathered.exposed_seconds, gathered.ways) == (gathers, "gathered")
    # Tokens of all ranks, and what was found for those of the first one, which has the most.
    travelling = found["travelling"]
    assert (seconds["travelling"], travelling.ways) == (1.0, "travelling")
    assert (travelling.received_bytes == 0) == (size == 1)
    # So few layers are gathered in less time than tokens need for the way.
    assert found["adapter-parallel"].ways == "gathered"
    losses = {facts["method"]: facts["first_loss"] for facts in told}
    assert list(losses) == [*OURS, *PEERS]
    assert losses == dict.fromkeys(losses, pytest.approx(losses["one-gpu"], rel=1e-5))


def shards(ranks: Ranks, folder: Path) -> list[bool]:
    config = LlamaConfig(**SMALL)
    model = peft_model(config, 4, ranks.device, torch.float32, "fsdp")
    return [isinstance(layer, FSDPModule) for layer in model.base_model.model.model.layers]


def test_every_layer_of_the_peer_is_sharded_by_itself(tmp_path: Path) -> None:
    assert outcomes(shards, 1, tmp_path) == [[True] * LAYERS]


@pytest.mark.parametrize("method", [method for method in POINTS if method != "one-gpu"])
def test_the_grid_is_measured_whole_after_what_the_bars_are_of(method: str) -> None:
    points = points_of(method, is_whole=True)
    assert points[: len(POINTS[method])] == points_of(method, is_whole=False) == POINTS[method]
    wanted = {
        (jobs, size, length) for jobs in (8, 32) for size in (1, 2, 4, 8) for length in (256, 1024)
    }
    wanted |= {(p.jobs, p.batch_size, p.length) for p in POINTS[method]}
    assert sorted((p.jobs, p.batch_size, p.length) for p in points) == sorted(wanted)


def too_large(bench: Bench, name: str) -> Decoder:
    raise torch.OutOfMemoryError


def measure_too_large(ranks: Ranks, folder: Path) -> None:
    adapter_parallel.whole = too_large
    bench = bench_of(ranks, folder / "rows", 0)
    measure_ours(bench, "Llama-3.1-70B", "one-gpu", [POINT])
    (folder / "went on").touch()


def test_a_backbone_that_no_gpu_holds_is_passed_over(tmp_path: Path) -> None:
    outcomes(measure_too_large, 1, tmp_path)
    assert (tmp_path / "went on").exists()
    assert not (tmp_path / "rows").exists()
