"""Validation losses and greedy answers, against transformers' own."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from alto_exec.adapters.bank import AdapterBank, AdapterState, Slot
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.samples import Sample
from alto_exec.passes import evaluation
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.evaluation import (
    FROZEN,
    Adapter,
    accuracies,
    generate,
    validation_loss,
    validation_losses,
)
from alto_policy.types import Hyperparameters
from tests.exec.comparing import assert_close
from tests.exec.packed_loop import named_views, ragged_samples, tiny_model
from tests.exec.plain_loop import as_peft
from tests.exec.tiny_models import TINY_MODELS

H = Hyperparameters(rank=4, alpha=8.0)
SAMPLES = ragged_samples(50, longest=110)
PROMPT = (5, 17, 40, 8)


def state_of(bank: AdapterBank, seed: int) -> AdapterState:
    """An adapter that says something else than the frozen model."""
    state = bank.fresh(H.rank, seed)
    state.value_rC.normal_(std=0.2, generator=torch.Generator().manual_seed(seed))
    return state


def with_adapters(family: str, number: int) -> tuple[Backbone, AdapterBank, list[Slot]]:
    backbone = Backbone(tiny_model(family))
    bank = AdapterBank(backbone.shapes, backbone.device)
    return backbone, bank, [bank.join(state_of(bank, seed)) for seed in range(number)]


def peft_with(family: str, bank: AdapterBank, seed: int) -> PeftModel:
    adapter = dict(named_views(bank, state_of(bank, seed).value_rC))
    return as_peft(tiny_model(family), H, adapter).eval()


def mean_over_all(model: PreTrainedModel | PeftModel, samples: list[Sample]) -> float:
    """Of all target tokens, those of long answers and of short ones alike."""
    losses: list[float] = []
    for sample in samples:
        tokens = torch.tensor(sample.tokens)
        with torch.no_grad():
            logits = model(input_ids=tokens[None]).logits[0]
        each = cross_entropy(logits[:-1], tokens[1:], reduction="none")
        losses += each[torch.tensor(sample.is_target)[1:]].tolist()
    return sum(losses) / len(losses)


def test_the_validation_loss_is_the_mean_over_all_target_tokens() -> None:
    """More tokens than one pass holds."""
    assert sum(len(s.tokens) for s in SAMPLES) > 2048
    backbone, bank, slots = with_adapters("llama", 2)
    for seed, slot in enumerate(slots):
        found = validation_loss(backbone, bank, SAMPLES, slot, H.scale)
        expected = mean_over_all(peft_with("llama", bank, seed), SAMPLES)
        assert_close(torch.tensor(found), torch.tensor(expected))
    found = validation_loss(backbone, bank, SAMPLES, slot=None)
    assert_close(torch.tensor(found), torch.tensor(mean_over_all(tiny_model("llama"), SAMPLES)))


def test_a_validation_loss_does_not_depend_on_who_else_is_there() -> None:
    backbone, bank, (slot, other) = with_adapters("llama", 2)
    before = validation_loss(backbone, bank, SAMPLES, slot, H.scale)
    bank.leave(other)
    bank.join(bank.fresh(200, seed=7))  # the bank grows
    assert validation_loss(backbone, bank, SAMPLES, slot, H.scale) == before


@pytest.mark.parametrize("count", [3, 50], ids=["several in a pass", "several passes for each"])
def test_many_adapters_are_evaluated_together_as_alone(count: int) -> None:
    """The frozen model among them; in any order."""
    backbone, bank, slots = with_adapters("llama", 3)
    adapters = [
        Adapter(slots[0], H.scale),
        FROZEN,
        Adapter(slots[2], 1.0),
        Adapter(slots[1], H.scale),
    ]
    samples = SAMPLES[:count]
    alone = [validation_losses(backbone, bank, samples, [adapter])[0] for adapter in adapters]
    assert len(set(alone)) == len(adapters)
    together = validation_losses(backbone, bank, samples, adapters)
    turned = validation_losses(backbone, bank, samples, adapters[::-1])
    for found in (together, turned[::-1]):
        assert_close(torch.tensor(found), torch.tensor(alone))


def test_passes_are_few_and_no_larger_than_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, bank, slots = with_adapters("llama", 5)
    sizes: list[int] = []
    loss_sums = backbone.loss_sums

    def counting(bank: AdapterBank, batch: PackedBatch) -> torch.Tensor:
        sizes.append(len(batch.tokens_T))
        return loss_sums(bank, batch)

    monkeypatch.setattr(backbone, "loss_sums", counting)
    few = SAMPLES[:6]
    tokens = sum(len(sample.tokens) for sample in few)
    monkeypatch.setattr(evaluation, "_CPU_TOKENS", 3 * tokens + 1)
    validation_losses(backbone, bank, few, [Adapter(slot) for slot in slots])
    assert sizes == [3 * tokens, 2 * tokens]
    assert validation_losses(backbone, bank, few, []) == []
    assert len(sizes) == 2


def test_memory_that_runs_out_makes_passes_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, bank, slots = with_adapters("llama", 2)
    adapters = [Adapter(slot, H.scale) for slot in slots]
    expected = validation_losses(backbone, bank, SAMPLES, adapters)
    loss_sums = backbone.loss_sums

    def on_small_device(bank: AdapterBank, batch: PackedBatch) -> torch.Tensor:
        if len(batch.tokens_T) > 700:
            raise torch.OutOfMemoryError("no room")
        return loss_sums(bank, batch)

    monkeypatch.setattr(backbone, "loss_sums", on_small_device)
    found = validation_losses(backbone, bank, SAMPLES, adapters)
    assert_close(torch.tensor(found), torch.tensor(expected))


def test_evaluating_leaves_no_gradient() -> None:
    backbone, bank, (slot,) = with_adapters("llama", 1)
    validation_loss(backbone, bank, SAMPLES[:4], slot, H.scale)
    assert not bank.grad_RC.any()


@pytest.mark.parametrize("family", TINY_MODELS)
def test_answers_are_those_of_transformers_greedy_generation(family: str) -> None:
    """Of two adapters and of the frozen model, all three in one batch."""
    backbone, bank, slots = with_adapters(family, 2)
    adapters = [Adapter(slots[0], H.scale), FROZEN, Adapter(slots[1], H.scale)]
    found = generate(backbone, bank, PROMPT, adapters, end_tokens=frozenset(), max_new_tokens=12)
    models = [peft_with(family, bank, 0), tiny_model(family), peft_with(family, bank, 1)]
    assert found == [greedy(model, 12) for model in models]
    assert len(set(found)) == 3


def test_an_answer_ends_at_an_end_token_and_the_others_go_on() -> None:
    backbone, bank, slots = with_adapters("llama", 2)
    adapters = [Adapter(slot, H.scale) for slot in slots]
    whole = generate(backbone, bank, PROMPT, adapters, end_tokens=frozenset(), max_new_tokens=9)
    end = next(token for token in whole[0] if token not in whole[1])
    cut = generate(backbone, bank, PROMPT, adapters, end_tokens=frozenset({end}), max_new_tokens=9)
    assert cut == [whole[0][: whole[0].index(end)], whole[1]]


def test_accuracies_are_those_of_answers_that_are_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of both adapters, with answers that each of them gives, and others; several passes."""
    monkeypatch.setattr(evaluation, "_CPU_TOKENS", 100)
    backbone, bank, slots = with_adapters("llama", 2)
    adapters = [FROZEN, *(Adapter(slot, H.scale) for slot in slots)]
    generator = torch.Generator().manual_seed(3)
    samples, given = [], []
    for number in range(12):
        prompt = tuple(torch.randint(1, 60, (12 + number % 5,), generator=generator).tolist())
        answers = generate(
            backbone, bank, prompt, adapters, end_tokens=frozenset(), max_new_tokens=4
        )
        given.append(answers)
        answer = answers[number % 3]
        known = answer if number % 2 else (*answer[:2], (answer[2] + 1) % 60, answer[3])
        is_target = (False,) * len(prompt) + (True,) * len(known)
        samples.append(Sample((*prompt, *known), is_target))
    found = accuracies(backbone, bank, samples, adapters)
    for number, each in enumerate(found):
        right = [one.tokens[-4:] == all_[number] for one, all_ in zip(samples, given, strict=True)]
        assert each.answers == sum(right) / 12 >= 2 / 12
        assert each.answers <= each.tokens < 1
    frozen = share_of_next_tokens(backbone, bank, samples)
    assert found[0].tokens == pytest.approx(frozen)


def next_token(backbone: Backbone, bank: AdapterBank, prompt: Sequence[int]) -> int:
    ((token,),) = generate(
        backbone, bank, prompt, [FROZEN], end_tokens=frozenset(), max_new_tokens=1
    )
    return token


def share_of_next_tokens(backbone: Backbone, bank: AdapterBank, samples: list[Sample]) -> float:
    """Share of known tokens that the frozen model goes on with, one at a time."""
    right = [
        generate(
            backbone,
            bank,
            sample.tokens[:place],
            [FROZEN],
            end_tokens=frozenset(),
            max_new_tokens=1,
        )
        == [sample.tokens[place : place + 1]]
        for sample in samples
        for place in range(len(sample.tokens) - 4, len(sample.tokens))
    ]
    return sum(right) / len(right)


def greedy(model: Any, length: int) -> tuple[int, ...]:
    tokens = model.generate(
        input_ids=torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        max_new_tokens=length,
        min_new_tokens=length,
        do_sample=False,
        eos_token_id=None,
    )
    return tuple(tokens[0, len(PROMPT) :].tolist())
