"""Ranks compute activations again alike, in the passes for which one of them has no room."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from alto_exec.backbones.decoder import Decoder
from alto_exec.parallel.agreement import UNRECORDED, Agreement, Offer, Pass
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_policy.executors.exchange import PassTokens, Way
from tests.exec.batches import a_batch
from tests.exec.comparing import (
    Trajectory,
    assert_identical,
    assert_same_training,
    in_double_precision,
)
from tests.exec.memory.test_recompute import BOTH
from tests.parallel.ranks_of_processes import outcomes
from tests.parallel.recorder import Recorder
from tests.parallel.test_agreement import of_two
from tests.parallel.test_recorded_passes import NOW, ON_GPUS, a_model, adapters
from tests.parallel.test_sharded_decoder import JOBS, LAYERS, OWNERS, model_of, train

# The first rank has room for all that it keeps, the second for some 30 tokens of all layers.
CAPACITIES = (1_000_000, 30_000)


@dataclass(frozen=True, slots=True)
class Told:
    trajectories: dict[str, Trajectory]
    agreed: tuple[int | None, ...]  # layers of each pass that was made
    captures: int
    replays: int
    passes: dict[Way, int]


def train_with_little_memory(ranks: Ranks, folder: Path) -> Told:
    with in_double_precision():
        whole = model_of("llama")
        recorder = Recorder(partial(ShardedDecoder, whole, ranks, way=Way.TRAVELLING))
        model = recorder.model
        model.activations.follow(replace(BOTH, capacity=CAPACITIES[ranks.rank]))
        agreed: list[int | None] = []
        begin = model.layers.begin

        def watched(kind: Pass, tokens: PassTokens, way: Way) -> None:
            agreed.append(model.activations.agreed)
            begin(kind, tokens, way)

        pytest.MonkeyPatch().setattr(model.layers, "begin", watched)
        trajectories, _ = train(model, [JOBS[i] for i in OWNERS[ranks.size][ranks.rank]])
        model.settle()
    return Told(
        trajectories, tuple(agreed), recorder.captures, recorder.replays, model.layers.passes
    )


def test_ranks_compute_alike_and_no_job_feels_it(tmp_path: Path) -> None:
    first, second = outcomes(train_with_little_memory, 2, tmp_path)
    assert first.agreed == second.agreed
    assert {0} < set(first.agreed)
    assert set(first.agreed) <= set(range(LAYERS + 1))
    gathered = sum(layers > 0 for layers in first.agreed if layers is not None)
    assert first.passes[Way.GATHERED] == gathered, "others travel, as they were told"
    with in_double_precision():
        together, _ = train(Decoder(model_of("llama")), list(JOBS))
    for found in (first, second):
        assert found.replays >= found.captures > 0, "those that keep theirs are recorded"
        for name, trajectory in found.trajectories.items():
            assert_same_training(trajectory, together[name], what=name)


def test_the_rank_with_the_least_room_decides() -> None:
    """Nothing is recorded then, whatever the others could."""
    ranks = Agreement(0), Agreement(1)
    roomy = Offer(Pass.TRAIN, tokens=30, rows=64)
    tight = Offer(Pass.TRAIN, tokens=90, rows=UNRECORDED, layers_again=3)
    tighter = Offer(Pass.TRAIN, tokens=99, rows=UNRECORDED, layers_again=5)
    for offers, expected in (((roomy, tight), 3), ((tight, tighter), 5), ((roomy, roomy), 0)):
        agreed = of_two(*ranks, *offers)
        assert agreed.layers_again == expected
        assert (agreed.number is None) == (expected > 0)


def ask(ranks: Ranks, folder: Path) -> tuple[bool, bool, int]:
    """The first rank trains before it asks; the second asks at once."""
    whole = model_of("llama")
    model = ShardedDecoder(whole, ranks, way=Way.GATHERED)
    if ranks.is_leader:
        train(model, [JOBS[0]])
    found = model.is_any(not ranks.is_leader), model.is_any(False)
    return *found, model.layers.passes[Way.GATHERED]


def test_a_rank_that_asks_the_others_assists_them_until_they_do(tmp_path: Path) -> None:
    first, second = outcomes(ask, 2, tmp_path)
    assert first == second
    assert first[:2] == (True, False)
    assert first[2] > 5


def with_little_memory_on_one(ranks: Ranks, folder: Path) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Losses and gradients of passes whose activations are kept, and of some that keep few."""
    found = {}
    for way in (Way.GATHERED, Way.COPIED):
        for capacity in (1_000_000, 50_000, 0):
            model = a_model(ranks, way)
            if not ranks.is_leader:
                model.activations.follow(replace(BOTH, capacity=capacity))
            bank, slots = adapters(model)
            passes = []
            for _ in range(3):
                bank.grad_RC.zero_()
                losses_N = model.train(bank, *a_batch(slots, NOW, model.device)).clone()
                passes.append((losses_N.cpu(), bank.grad_RC.clone().cpu()))
            model.settle()
            assert (model.replayed.passes > 0) == (capacity == 1_000_000)
            found[f"{way.value} {capacity}"] = passes
    return found


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPUS, reason="memory of another GPU")
def test_on_gpus_ranks_that_compute_again_train_what_others_train(tmp_path: Path) -> None:
    for found in outcomes(with_little_memory_on_one, 2, tmp_path, "cuda"):
        (expected, *_), *_ = found.values()
        assert expected[1].any()
        for passes in found.values():
            for one in passes:
                for values, same in zip(one, expected, strict=True):
                    assert_identical(values, same)
