"""Adapters in the order of their files, put so by a device or beside training."""

import numpy as np
import pytest
import torch

from alto_exec.adapters import file_order
from alto_exec.adapters.bank import AdapterBank, LinearShape, random_state
from alto_exec.adapters.file_order import begin_copy, in_file_order, weights_of

ALIKE = [(8, 8, False), (8, 4, True), (8, 12, False), (12, 8, False)]
LAYERS = {
    "alike": ALIKE * 3,
    "one": ALIKE,
    "not alike": [*ALIKE, (8, 4, False)],
    "of one linear": [(5, 7, False)] * 4,
}


def bank_of(kind: str) -> AdapterBank:
    shapes = [
        LinearShape(f"linear{number}", inputs, outputs, joins)
        for number, (inputs, outputs, joins) in enumerate(LAYERS[kind])
    ]
    return AdapterBank(shapes, torch.device("cpu"), rows=16)


def file_of(bank: AdapterBank, value_rC: torch.Tensor) -> bytes:
    """A and B of each linear, one after another."""
    matrices = (m for _, a_rI, b_rO in bank.matrices(value_rC) for m in (a_rI, b_rO.T))
    return b"".join(matrix.contiguous().numpy().tobytes() for matrix in matrices)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_weights_lie_as_in_the_file(kind: str, rank: int) -> None:
    bank = bank_of(kind)
    value_rC = random_state(bank, rank).value_rC
    assert in_file_order(bank, value_rC).tobytes() == file_of(bank, value_rC)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("some", [1, 2, 64])
def test_a_device_puts_a_few_layers_in_order_at_a_time(kind: str, some: int) -> None:
    bank = bank_of(kind)
    value_rC = random_state(bank, 3).value_rC
    wanted = in_file_order(bank, value_rC)
    parts = [
        file_order._ordered(bank, value_rC, slice(first, min(first + some, len(wanted))))
        for first in range(0, len(wanted), some)
    ]
    assert np.array_equal(torch.cat(parts).numpy(), wanted)


def test_a_copy_stays_as_it_was_and_is_written_over_the_one_before() -> None:
    bank, before = bank_of("alike"), None
    for _ in range(2):
        slot = bank.join(random_state(bank, 3))
        wanted = bank.value_RC[slot.rows].clone()
        copy = begin_copy(bank, slot.rows, before)
        assert before is None or copy is before
        bank.leave(slot)
        assert torch.equal(copy, wanted)
        assert np.array_equal(weights_of(bank, copy), in_file_order(bank, wanted))
        before = copy


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's copies")
@pytest.mark.parametrize("most_bytes", [1, 1 << 26], ids=["layer by layer", "all at once"])
def test_a_gpu_copies_in_the_order_of_the_file(
    most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_order, "_MOST_BYTES", most_bytes)
    bank = AdapterBank(bank_of("alike").shapes, torch.device("cuda"), rows=16)
    before = None
    for rank in (4, 4):
        slot = bank.join(random_state(bank, rank))
        wanted = in_file_order(bank, bank.value_RC[slot.rows].cpu())
        copy = begin_copy(bank, slot.rows, before)
        assert before is None or copy is before
        bank.leave(slot)
        torch.cuda.synchronize()
        assert np.array_equal(weights_of(bank, copy), wanted)
        before = copy
