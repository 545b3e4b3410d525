"""Validation losses and greedy answers, against transformers' own."""

import torch

from alto_exec.backbone import Backbone
from alto_exec.bank import AdapterBank, Slot
from alto_policy.types import Hyperparameters
from tests.exec.packed_loop import tiny_model

H = Hyperparameters(rank=4, alpha=8.0)
SCALE = H.scale


def with_adapters(family: str, number: int = 1) -> tuple[Backbone, AdapterBank, list[Slot]]:
    backbone = Backbone(tiny_model(family))
    bank = AdapterBank(backbone.shapes, backbone.device)
    return backbone, bank, [bank.join(strong_state(bank, seed)) for seed in range(number)]


def strong_state(bank: AdapterBank, seed: int):  # noqa: ANN201
    state = bank.fresh(H.rank, seed)
    generator = torch.Generator().manual_seed(seed)
    state.value_rC.normal_(std=0.3, generator=generator)
    return state
