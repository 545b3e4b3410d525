"""Jobs on a sharded backbone train as on a whole one, and nothing of them is sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.backbones.linears import ALL_LINEAR
from alto_exec.parallel.agreement import Offer, Pass
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.evaluation import validation_loss
from alto_exec.passes.frozen_model import FrozenModel
from alto_policy.executors.exchange import Way
from alto_policy.types import Job, Schedule
from tests.exec.comparing import Trajectory, assert_same_training, in_double_precision
from tests.exec.packed_loop import PackedRun, a_job, ragged_samples
from tests.exec.tiny_models import tiny_llama, tiny_qwen2, tiny_qwen3
from tests.parallel.ranks_of_processes import outcomes
from tests.parallel.traffic import Traffic

TRAIN, VALIDATION = ragged_samples(), ragged_samples(6, seed=1)
LAYERS = 5  # more than are at hand at a time
WHOLE = {2: 0, 3: 1, 4: 2}  # layers that stay whole, by the number of ranks
JOBS = (
    a_job("plain", steps=5),
    a_job("wide", rank=9, batch_size=3, rslora=True, clip=0.3, seed=1),
    a_job("dropped", rank=2, dropout=0.4, batch_size=2, accumulation=2, seed=2),
    a_job("fast", steps=7, learning_rate=0.1, schedule=Schedule.COSINE, rise=0.3, seed=3),
)
# Uneven: one rank has most of the jobs, and of four one has none.
OWNERS = {2: ((0, 1, 2), (3,)), 3: ((0,), (1, 2), (3,)), 4: ((0, 1), (2,), (), (3,))}
OFFERED = len(Offer(Pass.NONE).numbers())
MOST_PASSES = 8  # of training, by the third job


@dataclass(frozen=True, slots=True)
class Told:
    """What one rank came to."""

    trajectories: dict[str, Trajectory]
    validation: dict[str, float]
    calls: dict[str, int]
    numbers: dict[str, int]
    shard: int  # numbers of a layer's shard
    gathers: int
    passes: dict[Way, int]
    received_bytes: int


def model_of(family: str) -> PreTrainedModel:
    """In the precision that new tensors have."""
    makers: dict[str, Callable[..., tuple[nn.Module, object]]] = {
        "llama": tiny_llama,
        "qwen2": tiny_qwen2,
        "qwen3": tiny_qwen3,
    }
    return cast(PreTrainedModel, makers[family](layers=LAYERS)[0].to(torch.get_default_dtype()))


def run_on(model: FrozenModel, jobs: list[Job]) -> PackedRun:
    bank = AdapterBank(model.shapes, model.device, rows=16)
    run = PackedRun(TRAIN, model, bank)
    for job in jobs:
        run.join(job)
    return run


def train(model: FrozenModel, jobs: list[Job]) -> tuple[dict[str, Trajectory], dict[str, float]]:
    """To their ends, with the validation loss of each."""
    run = run_on(model, jobs)
    run.finish()
    losses = {
        str(job.id): validation_loss(
            model, run.bank, VALIDATION, run.resident(job.id).slot, job.hyperparameters.scale
        )
        for job in jobs
    }
    return {job.id: run.trajectory(job.id) for job in jobs}, losses


def train_sharded(
    family: str, way: Way, targets: str | Sequence[str], ranks: Ranks, folder: Path
) -> Told:
    with in_double_precision():
        whole_layers = WHOLE[ranks.size]
        model = ShardedDecoder(model_of(family), ranks, targets, whole_layers=whole_layers, way=way)
        mine = [JOBS[i] for i in OWNERS[ranks.size][ranks.rank]]
        with Traffic() as traffic:
            trajectories, validation = train(model, mine)
            model.settle()
    counts = traffic.counts
    layers = model.layers
    return Told(
        trajectories,
        validation,
        calls=dict(counts.calls),
        numbers=dict(counts.numbers),
        shard=layers.num_bytes // 8 // (LAYERS - whole_layers),
        gathers=layers.gathers,
        passes=layers.passes,
        received_bytes=layers.received_bytes,
    )


@pytest.fixture(scope="module", params=[("qwen3", 2), ("qwen2", 4)], ids=["2", "4"])
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[Told]]:
    """Qwen 3, with its norms of heads, on two ranks; Qwen 2, with its biases and its tied head, on
    four, with whole layers."""
    family, size = request.param
    scene = partial(train_sharded, family, Way.GATHERED, ALL_LINEAR)
    return family, outcomes(scene, size, tmp_path_factory.mktemp("sharded") / "ranks")


def test_jobs_train_as_on_one_process_bit_for_bit(told: tuple[str, list[Told]]) -> None:
    family, ranks = told
    with in_double_precision():
        for owned, found in zip(OWNERS[len(ranks)], ranks, strict=True):
            expected, validation = train(Decoder(model_of(family)), [JOBS[i] for i in owned])
            assert found.trajectories.keys() == expected.keys()
            assert found.validation == validation
            for name, trajectory in expected.items():
                assert_same_training(found.trajectories[name], trajectory, bitwise=True, what=name)


def test_jobs_train_as_beside_all_others_on_one_process(told: tuple[str, list[Told]]) -> None:
    family, ranks = told
    with in_double_precision():
        together, _ = train(Decoder(model_of(family)), list(JOBS))
    for found in ranks:
        for name, trajectory in found.trajectories.items():
            assert_same_training(trajectory, together[name], what=name)


def test_nothing_is_sent_but_shards_and_what_is_agreed(told: tuple[str, list[Told]]) -> None:
    """The counter sees every collective: gathers of layers, and an offer before each pass."""
    _, ranks = told
    size = len(ranks)
    for found in ranks:
        assert found.calls.keys() == {"allgather_into_tensor_coalesced_", "allgather_"}
        agreements = found.calls["allgather_"]
        assert found.numbers["allgather_"] == agreements * OFFERED * (size + 1)
        # In training all that are sharded but the two at hand, forward and back. In evaluation the
        # same forward, and then two others are at hand. Who evaluates early takes part in training.
        evaluations, sharded = agreements - MOST_PASSES - 1, LAYERS - WHOLE[size]
        assert evaluations > 0
        expected = 2 + MOST_PASSES * 2 * (sharded - 2) + (evaluations - 1) * sharded + sharded - 2
        name = "allgather_into_tensor_coalesced_"
        assert found.calls[name] == found.gathers == expected
        assert found.numbers[name] == expected * found.shard * (size + 1)
        assert found.received_bytes == 8 * expected * found.shard * (size - 1)
        assert found.passes == dict.fromkeys(Way, 0) | {Way.GATHERED: agreements - 1}
