"""Shards that are copied out of the other ranks' memory: what trains is what all-gathers train."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from alto_exec.parallel import sharded_layers
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.shard_gathers import Memories
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_policy.executors.exchange import Way
from tests.exec.batches import a_batch
from tests.exec.comparing import (
    Trajectory,
    assert_identical,
    assert_same_training,
    in_double_precision,
)
from tests.parallel.ranks_of_processes import outcomes
from tests.parallel.test_recorded_passes import NOW, ON_GPUS, a_model, adapters
from tests.parallel.test_sharded_decoder import JOBS, OWNERS, model_of, train
from tests.parallel.traffic import Traffic

PASSES = 4


@dataclass(frozen=True, slots=True)
class Trained:
    trajectories: dict[str, Trajectory]
    gathers: int
    received_bytes: int
    calls: dict[str, int]  # of collectives


def told_once(ranks: Ranks) -> Memories:
    """The memory of all ranks as it was when a layer was kept: frozen weights never change."""

    def memories(flat: Tensor) -> Sequence[Tensor]:
        found = [torch.empty_like(flat) for _ in range(ranks.size)]
        dist.all_gather(found, flat, group=ranks.group)
        return found

    return memories


def trained_both_ways(ranks: Ranks, folder: Path) -> list[Trained]:
    found = []
    mine = [JOBS[i] for i in OWNERS[ranks.size][ranks.rank]]
    pytest.MonkeyPatch().setattr(sharded_layers, "rank_memories", told_once)  # in its own process
    for way in (Way.GATHERED, Way.COPIED):
        with in_double_precision():
            model = ShardedDecoder(model_of("qwen2"), ranks, whole_layers=1, way=way)
            with Traffic() as traffic:
                trajectories, _ = train(model, mine)
                model.settle()
        layers = model.layers
        calls = dict(traffic.counts.calls)
        found.append(Trained(trajectories, layers.gathers, layers.received_bytes, calls))
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_copies_train_what_all_gathers_train(size: int, tmp_path: Path) -> None:
    for gathered, copied in outcomes(trained_both_ways, size, tmp_path):
        assert copied.trajectories.keys() == gathered.trajectories.keys()
        for name, trajectory in copied.trajectories.items():
            assert_same_training(trajectory, gathered.trajectories[name], bitwise=True, what=name)
        assert copied.gathers == gathered.gathers > 0
        assert copied.received_bytes == gathered.received_bytes > 0
        assert "allgather_into_tensor_coalesced_" in gathered.calls
        assert copied.calls.keys() == {"allgather_"}  # the ranks agree, and send no weight


def passes_both_ways(ranks: Ranks, folder: Path) -> list[list[tuple[Tensor, Tensor]]]:
    """Losses and gradients of a launched pass, of one that is recorded, and of replays."""
    found = []
    for way in (Way.GATHERED, Way.COPIED):
        model = a_model(ranks, way)
        bank, slots = adapters(model)
        passes = []
        for _ in range(PASSES):
            bank.grad_RC.zero_()
            losses_N = model.train(bank, *a_batch(slots, NOW, model.device)).clone()
            passes.append((losses_N.cpu(), bank.grad_RC.clone().cpu()))
        model.settle()
        assert model.replayed.passes == PASSES - 2
        found.append(passes)
    return found


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPUS, reason="memory of another GPU")
def test_copies_on_gpus_are_all_gathers(tmp_path: Path) -> None:
    for gathered, copied in outcomes(passes_both_ways, 2, tmp_path, "cuda"):
        for one, other in zip(gathered, copied, strict=True):
            assert one[1].any()
            for values, expected in zip(other, one, strict=True):
                assert_identical(values, expected)


def test_ranks_on_no_gpus_reach_no_memory(tmp_path: Path) -> None:
    assert outcomes(reach, 2, tmp_path) == [False, False]


def reach(ranks: Ranks, folder: Path) -> bool:
    return ranks.reach_one_another
