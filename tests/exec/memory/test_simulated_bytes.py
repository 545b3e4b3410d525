"""The simulator counts the bytes of frozen weights and of adapters' states as an executor does."""

from typing import cast

import pytest
import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.backbones.quantized_layers import Format, QuantizedLayers
from alto_runs.costs.storage import Storage
from alto_runs.costs.work import PassWork, byte_terms
from alto_runs.profile import ModelShape
from tests.exec.tiny_models import tiny_llama

CPU = torch.device("cpu")
_NORMS = 0.03  # of a model as small as this one; the simulator leaves norms out


def counted(model: Decoder, storage: Storage) -> tuple[float, float]:
    """Bytes of frozen weights, and of the states of one unit of rank, as the simulator has them."""
    config = tiny_llama()[0].config
    shape = ModelShape(
        name="tiny",
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        head_size=config.head_dim,
        vocabulary=config.vocab_size,
        tied=config.tie_word_embeddings,
    )
    work = PassWork(shape, 1, 1, 1, 1, 1, weight_bytes=model.dtype.itemsize, storage=storage)
    weights, *_, states = byte_terms(work)
    return weights, states


@pytest.mark.parametrize("kind", ["plain", "int8", "nf4"])
def test_frozen_weights(kind: str) -> None:
    keeper = None if kind == "plain" else QuantizedLayers(cast(Format, kind), CPU)
    model = Decoder(tiny_llama()[0], keeper=keeper)
    weights, _ = counted(model, Storage(frozen_weights=kind))
    assert weights == pytest.approx(model.num_bytes, rel=_NORMS)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_states_of_adapters(kind: str) -> None:
    model = Decoder(tiny_llama()[0])
    bank = AdapterBank(model.shapes, CPU, dtype=torch.bfloat16, in_8_bits=kind == "int8")
    _, states = counted(model, Storage(optimizer_states=kind))
    assert states == pytest.approx(bank.bytes_per_rank, rel=1e-3)
