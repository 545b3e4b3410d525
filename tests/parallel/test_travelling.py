"""Jobs train as on one process where their tokens travel to the shards, and only tokens do."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.backbones.linears import ALL_LINEAR
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.parallel.sharded_layers import spread_evenly
from alto_exec.parallel.travelling import TravellingTokens
from alto_kernels.lora_linear import AdaptedGroup
from alto_policy.executors.exchange import PassTokens, Way
from tests.exec.comparing import Trajectory, assert_same_training, in_double_precision
from tests.exec.packed_loop import PackedRun
from tests.parallel.ranks_of_processes import outcomes
from tests.parallel.test_sharded_decoder import (
    JOBS,
    LAYERS,
    MOST_PASSES,
    TRAIN,
    WHOLE,
    Told,
    model_of,
    train,
    train_sharded,
)
from tests.parallel.traffic import Traffic

# Three ranks: outputs do not come out even, and most linears have no adapter; the first one that
# has is behind others.
SCENES = [
    ("llama", 2, ALL_LINEAR),
    ("qwen2", 4, ALL_LINEAR),
    ("qwen2", 3, ("k_proj", "down_proj")),
]


@pytest.fixture(scope="module", params=SCENES, ids=lambda scene: str(scene[1]))
def travelled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str | tuple[str, ...], list[Told]]:
    family, size, targets = request.param
    scene = partial(train_sharded, family, Way.TRAVELLING, targets)
    folder = tmp_path_factory.mktemp("travelled") / "ranks"
    return family, targets, outcomes(scene, size, folder)


def test_jobs_train_as_beside_all_others_on_one_process(
    travelled: tuple[str, str | tuple[str, ...], list[Told]],
) -> None:
    family, targets, ranks = travelled
    with in_double_precision():
        together, validation = train(Decoder(model_of(family), targets), list(JOBS))
    assert sorted(name for found in ranks for name in found.trajectories) == sorted(together)
    for found in ranks:
        for name, trajectory in found.trajectories.items():
            assert_same_training(trajectory, together[name], what=name)
            assert found.validation[name] == pytest.approx(validation[name], rel=1e-9)


def test_no_weight_is_gathered_and_steps_are_those_of_all_groups(
    travelled: tuple[str, str | tuple[str, ...], list[Told]],
) -> None:
    family, targets, ranks = travelled
    size = len(ranks)
    with in_double_precision():
        layer = Decoder(model_of(family), targets)._layers[0]
    groups, layers = len(layer.groups), LAYERS - WHOLE[size]
    # Before the first adapter nobody wants a gradient; a first layer that is whole takes no part.
    silent = len(layer.qkv.groups) if 0 not in spread_evenly(WHOLE[size], LAYERS) else 0
    for found in ranks:
        assert found.gathers == 0
        assert found.calls.keys() <= {"alltoall_base_", "_allgather_base_", "allgather_"}
        passes = found.passes[Way.TRAVELLING]
        assert found.calls["allgather_"] == passes + 1
        exchanges = found.calls["alltoall_base_"] + found.calls.get("_allgather_base_", 0)
        assert exchanges == 2 * (
            passes * groups * layers + MOST_PASSES * (groups * layers - silent)
        )
        assert found.received_bytes > 0


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Of one step there and one back."""

    y: torch.Tensor
    dx: torch.Tensor
    received_bytes: int
    numbers: dict[str, int]  # in the tensors of each kind of collective


OUTPUTS, INPUTS = 7, 5
WEIGHT_OI = torch.arange(OUTPUTS * INPUTS, dtype=torch.float64).view(OUTPUTS, INPUTS).sin()


def exchange(counts: PassTokens, ranks: Ranks, folder: Path) -> Exchanged:
    """With inputs and gradients that tell the rank; who does not train finishes."""
    rows = -(-OUTPUTS // ranks.size)
    shard = torch.zeros(rows, INPUTS, dtype=torch.float64)
    mine = WEIGHT_OI[rows * ranks.rank : rows * (ranks.rank + 1)]
    shard[: len(mine)] = mine
    tokens = TravellingTokens(ranks)
    number = tokens.add(shard, returns=True)
    x = inputs_of(ranks.rank, counts.forward[ranks.rank]).requires_grad_()
    with Traffic() as traffic:
        tokens.begin(counts)
        y = tokens.product(number, x, OUTPUTS)
        dx = torch.zeros_like(x)
        if counts.backward[ranks.rank]:
            (dx,) = torch.autograd.grad(y.sin().sum(), [x])
        tokens.finish()
    return Exchanged(y.detach(), dx, tokens.received_bytes, dict(traffic.counts.numbers))


def inputs_of(rank: int, count: int) -> torch.Tensor:
    return torch.arange(count * INPUTS, dtype=torch.float64).add(rank).cos().view(count, INPUTS)


@pytest.mark.parametrize(
    ("forward", "backward", "is_even"),
    [
        pytest.param((6, 0, 2), (6, 0, 2), False, id="uneven-and-empty"),
        pytest.param((4, 3, 9), (4, 0, 9), False, id="one-evaluates"),
        pytest.param((9, 8, 9), (9, 8, 9), True, id="nearly-even"),
        pytest.param((2, 5), (2, 5), False, id="two"),
        pytest.param((0, 3), (0, 0), False, id="forward-alone"),
    ],
)
def test_a_product_there_and_back(
    forward: tuple[int, ...], backward: tuple[int, ...], is_even: bool, tmp_path: Path
) -> None:
    size = len(forward)
    counts = PassTokens(forward, backward)
    found = outcomes(partial(exchange, counts), size, tmp_path)
    part = -(-OUTPUTS // size)
    sent = counts.evened()
    assert (len(set(sent.forward)) == 1) == is_even
    for rank, one in enumerate(found):
        x = inputs_of(rank, forward[rank]).requires_grad_()
        y = x @ WEIGHT_OI.T
        torch.testing.assert_close(one.y, y.detach())
        if backward[rank]:
            torch.testing.assert_close(one.dx, torch.autograd.grad(y.sin().sum(), [x])[0])
        moved = handed = 0
        for half, there, back in ((sent.forward, INPUTS, part), (sent.backward, part, INPUTS)):
            moved += (sum(half) - half[rank]) * there + (size - 1) * half[rank] * back
            handed += (sum(half) + size * half[rank]) * (there + back)  # in and out, own parts too
        assert one.received_bytes == 8 * moved
        # What is gathered evenly is handed in once, and not once for each rank.
        handed -= is_even * (size - 1) * sent.forward[rank] * INPUTS
        assert sum(one.numbers.values()) == handed


class Broken(AdapterBank):
    """Memory runs out in the middle of the forward half."""

    fails_at = 0

    def group(self, number: int, *parts: Any) -> AdaptedGroup:
        self.fails_at -= 1
        if self.fails_at == 0:
            raise torch.OutOfMemoryError
        return super().group(number, *parts)


def train_beside_one_that_fails(ranks: Ranks, folder: Path) -> dict[str, Trajectory]:
    with in_double_precision():
        model = ShardedDecoder(model_of("llama"), ranks, way=Way.TRAVELLING)
        if ranks.is_leader:
            found, _ = train(model, [JOBS[0]])
            model.settle()
            return found
        bank = Broken(model.shapes, model.device, rows=16)
        run = PackedRun(TRAIN, model, bank)
        run.join(JOBS[1])
        bank.fails_at = 9
        with pytest.raises(torch.OutOfMemoryError):
            run.finish()
        model.settle()
        return {}


def test_a_rank_that_fails_in_a_pass_makes_its_steps_for_the_others(tmp_path: Path) -> None:
    found, _ = outcomes(train_beside_one_that_fails, 2, tmp_path)
    with in_double_precision():
        expected, _ = train(Decoder(model_of("llama")), [JOBS[0]])
    for name, trajectory in expected.items():
        assert_same_training(found[name], trajectory, what=name)
