"""Weights of pairs in buffers with room, as recorded passes have them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones import decoder
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Pair
from alto_exec.passes.batch import Share, pack
from alto_exec.passes.objective import PairsOfJob, Preferences, References
from alto_exec.passes.weighing import PairWeights, WeighShape
from tests.exec.comparing import assert_close, assert_identical
from tests.exec.packed_loop import ragged_samples
from tests.exec.tiny_models import tiny_llama

ON_GPU = torch.cuda.is_available()
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
PAIRS = [
    Pair(*ragged_samples(2, seed)) for seed in range(6)
]  # the two answers of a pair need nothing in common here
KNOWN = dict.fromkeys(PAIRS[:2], (3.0, 2.5))


class Host:
    device, dtype = CPU, torch.float32


def preferences(*of_jobs: Sequence[Pair]) -> Preferences:
    """Pairs of two jobs, some of which the frozen model has seen."""
    parts = [PairsOfJob(tuple(pairs), 3, 0.3 + n) for n, pairs in enumerate(of_jobs)]
    return Preferences(parts, References(dict(KNOWN)))


MANY = preferences(PAIRS[1:4], PAIRS[2:6])
FEW = preferences(PAIRS[:2], PAIRS[3:4])


def losses_for(targets: int, seed: int) -> Tensor:
    return torch.rand(targets, generator=torch.Generator().manual_seed(seed))


def num_targets(of: Preferences) -> int:
    weights_N = of.weigh(Host())(torch.zeros(1000))
    return len(weights_N)


@pytest.mark.parametrize("order", [(MANY,), (FEW,), (MANY, FEW), (FEW, MANY)])
def test_room_changes_no_weight(order: Sequence[Preferences]) -> None:
    """Nor does the batch before, or what losses the targets left over have."""
    shape, room = WeighShape(11, 7), 400
    roomy = order[0].weigh(Host()).with_room(shape, room)
    for now in order:
        roomy.refill(now.weigh(Host()))
    own = now.weigh(Host())
    targets = num_targets(now)
    losses_N = losses_for(targets, seed=1)
    expected_N = own(losses_N)
    found_N = roomy(torch.cat([losses_N, losses_N.new_full((room - targets,), float("nan"))]))
    assert_identical(found_N[:targets], expected_N)
    assert not found_N[targets:].any()
    assert expected_N.any()


def test_a_shape_takes_as_many_pairs_and_of_no_other_kind() -> None:
    shape = MANY.weigh(Host()).shape()
    assert shape.takes(FEW.weigh(Host()).shape())
    assert not WeighShape(6, 8).takes(WeighShape(7, 0))
    assert not WeighShape(9, 1).takes(WeighShape(7, 2))
    assert not shape.takes(WeighShape())
    assert not WeighShape().takes(shape)


def test_a_lost_job_is_lost_alone() -> None:
    weigh = MANY.weigh(Host())
    assert isinstance(weigh, PairWeights)
    losses_N = losses_for(num_targets(MANY), seed=2)
    expected_N = weigh(losses_N)
    first = PAIRS[1].chosen.num_targets
    losses_N[0] = float("nan")
    found_N = weigh(losses_N)
    pair = first + PAIRS[1].rejected.num_targets
    assert found_N[:pair].isnan().all()
    assert_identical(found_N[pair:], expected_N[pair:])


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="CUDA graphs")
def test_a_recorded_pass_of_pairs_is_a_launched_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(most_recorded: int) -> list[Tensor]:
        monkeypatch.setattr(decoder, "most_recorded_tokens", lambda _: most_recorded)
        model: Any = tiny_llama()[0]
        backbone = Decoder(model.to(CUDA, torch.bfloat16))
        bank = AdapterBank(backbone.shapes, CUDA, rows=8, dtype=torch.bfloat16)
        slots = [bank.join(bank.fresh(4, seed)) for seed in range(2)]
        found = []
        for step, pairs in enumerate([PAIRS[1:4], PAIRS[:2], PAIRS[2:5], PAIRS[1:4]]):
            of = preferences(pairs, pairs[:1])
            jobs = (pairs, pairs[:1])
            shares = [
                Share(tuple(a for pair in own for a in pair.samples), slot, 2.0)
                for own, slot in zip(jobs, slots, strict=True)
            ]
            batch = pack([*shares, *of.frozen_shares], CUDA)
            bank.grad_RC.zero_()
            found.append(backbone.train(bank, batch, of.weigh(backbone)).clone())
            found.append(bank.grad_RC.clone())
            assert bank.grad_RC.any(), step
        return found

    for recorded, launched in zip(trained(1 << 20), trained(0), strict=True):
        assert_close(recorded, launched, "recorded")
