"""The first pass of a step writes over what the gradient bank held; further calls add."""

import pytest
import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.passes.batch import Share, pack
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.weighing import FixedWeights
from tests.exec.comparing import Trajectory, assert_same_training
from tests.exec.packed_loop import PackedRun, a_job, ragged_samples
from tests.exec.tiny_models import tiny_llama

SAMPLES = ragged_samples()


def trained(model: Backbone | Decoder, rubbish: float = 0.0) -> Trajectory:
    """A job of two passes a step, that finds rubbish in its rows of the gradient bank."""
    loop = PackedRun(SAMPLES, model, AdapterBank(model.shapes, model.device, 16))
    loop.join(a_job(accumulation=2, steps=2))
    loop.bank.grad_RC[loop.resident("job").slot.rows] = rubbish
    loop.finish()
    return loop.trajectory("job")


@pytest.mark.usefixtures("double_precision")
def test_steps_of_two_passes() -> None:
    found = trained(Decoder(tiny_llama()[0]), rubbish=torch.nan)
    assert_same_training(found, trained(Decoder(tiny_llama()[0])), bitwise=True)
    plain = trained(Backbone(tiny_llama()[0]), rubbish=torch.nan)
    assert_same_training(found, plain)


def test_a_linear_that_a_model_calls_twice_has_the_sum_of_both_gradients() -> None:
    model = tiny_llama()[0]
    model.model.layers[1] = model.model.layers[0]
    adapted = Backbone(model)
    assert len(adapted.shapes) < len(Backbone(tiny_llama()[0]).shapes)
    assert torch.equal(gradients(adapted, starts=True), gradients(adapted, starts=False))


def gradients(model: FrozenModel, *, starts: bool) -> Tensor:
    """The bank's, from zero, after one pass of one job."""
    bank = AdapterBank(model.shapes, model.device, 16)
    slot = bank.join(bank.fresh(4, seed=0))
    batch = pack([Share(tuple(SAMPLES[:4]), slot, 2.0, starts_gradients=starts)], model.device)
    model.train(bank, batch, FixedWeights(torch.ones(len(batch.targets_N))))
    return bank.grad_RC
