"""Rows of the bank are taken, given back, and found again as they were."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_exec.adapters.bank import AdapterBank, AdapterState, LinearShape, Slot
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.memory.counting import memory_model
from alto_kernels.adamw import Moments
from alto_policy.memory import MemoryModel
from alto_policy.types import Job
from tests.exec.comparing import assert_identical
from tests.exec.packed_loop import a_job, tiny_model

SHAPES = (LinearShape("one", 5, 7), LinearShape("two", 7, 3))
CPU = torch.device("cpu")


def random_state(rank: int, seed: int) -> AdapterState:
    generator = torch.Generator().manual_seed(seed)
    value_rC, *moments = (torch.randn(rank, 22, generator=generator) for _ in range(3))
    return AdapterState(value_rC, Moments(*moments))


def assert_holds(bank: AdapterBank, slot: Slot, state: AdapterState) -> None:
    found = bank.state(slot)
    assert_identical(found.value_rC, state.value_rC)
    assert found.moments is not None
    assert state.moments is not None
    for name, moment in state.moments.tensors.items():
        assert_identical(found.moments.tensors[name], moment, name)


@settings(max_examples=50)
@given(st.integers(1, 8), st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=20))
def test_whoever_joins_and_leaves_every_job_keeps_its_own(
    rows: int, script: list[tuple[bool, int]]
) -> None:
    """Slots never overlap, also when the bank grows; what is given back is clean."""
    bank = AdapterBank(SHAPES, CPU, rows)
    held: list[tuple[Slot, AdapterState]] = []
    for number, (joins, size) in enumerate(script):
        if joins or not held:
            state = random_state(size, number)
            slot = bank.join(state)
            assert not bank.grad_RC[slot.rows].any()
            bank.grad_RC[slot.rows] = torch.nan
            held.append((slot, state))
        else:
            slot, _ = held.pop(size % len(held))
            bank.leave(slot)
            moments = bank.memory.moments.tensors.values()
            assert not any(t[slot.rows].any() for t in (bank.value_RC, bank.grad_RC, *moments))
        for slot, state in held:
            assert_holds(bank, slot, state)
    taken = sorted(row for slot, _ in held for row in range(slot.first, slot.rows.stop))
    assert len(taken) == len(set(taken))


def test_compacted_slots_keep_all_that_is_theirs() -> None:
    """What departed jobs left is no part of it; the rows behind the last slot are given back."""
    bank = AdapterBank(SHAPES, CPU, rows=0, dtype=torch.bfloat16)
    states = [random_state(rank, seed) for seed, rank in enumerate((3, 5, 2, 4, 1))]
    slots = [bank.join(state) for state in states]
    bank.grad_RC.copy_(torch.arange(15.0)[:, None].expand(15, 22))
    for departed in (0, 3):
        bank.leave(slots[departed])
        bank.grad_RC[slots[departed].rows] = torch.nan
    gradients = {slot: bank.grad_RC[slot.rows].clone() for slot in slots}
    address = bank.value_RC.data_ptr()
    moved = bank.compact()
    assert moved == {slots[1]: Slot(0, 5), slots[2]: Slot(5, 2), slots[4]: Slot(7, 1)}
    assert bank.value_RC.data_ptr() == address
    for tensor in (bank.value_RC, bank.grad_RC, bank.memory.shadow_RC):
        assert not tensor[8:].any()
    bank.give_back(2)
    assert bank.num_rows == bank.num_taken_rows == 8, "slots are never cut off"
    for number in (1, 2, 4):
        slot = moved[slots[number]]
        assert_holds(bank, slot, states[number])
        assert_identical(bank.grad_RC[slot.rows], gradients[slots[number]])
        assert_identical(bank.memory.shadow_RC[slot.rows], states[number].value_rC.bfloat16())


def test_a_gap_is_used_again() -> None:
    bank = AdapterBank(SHAPES, CPU, rows=12)
    slots = [bank.join(random_state(4, seed)) for seed in range(3)]
    bank.leave(slots[1])
    assert bank.join(random_state(3, 7)) == Slot(4, 3)
    assert bank.join(random_state(1, 8)) == Slot(7, 1)
    assert bank.num_rows == 12


def test_a_linear_sees_its_columns_of_the_bank() -> None:
    bank = AdapterBank(SHAPES, CPU)
    slot = bank.join(random_state(2, 0))
    group = bank.group(1, torch.zeros(3, 7), None)
    (_, _, _), (name, a_rI, b_rO) = bank.matrices(bank.value_RC[slot.rows])
    assert name == "two"
    assert_identical(group.a_RMI[slot.rows, 0], a_rI)
    assert_identical(group.b_RO[slot.rows], b_rO)
    group.grad_b_RO[0, 0] = 3
    assert bank.grad_RC[0, 19] == 3


def test_linears_that_share_their_input_share_a_group() -> None:
    """Columns: A of one and of two, B of one and of two, then the third linear's."""
    together = (SHAPES[0], replace(SHAPES[0], name="twin", outputs=3, joins=True), SHAPES[1])
    bank = AdapterBank(together, CPU)
    slot = bank.join(bank.fresh(2, seed=0))
    bank.value_RC.detach()[slot.rows] = torch.arange(2.0 * bank.num_columns).view(2, -1)
    width, first, second = SHAPES[0].inputs, SHAPES[0].outputs, 3
    group = bank.group(0, torch.zeros(first + second, width), None)
    assert group.outputs == (first, second)
    assert group.a_RMI[0, 1, 0] == width
    assert group.b_RO[0, 0] == 2 * width
    assert group.b_RO[0, first] == 2 * width + first
    matrices = {name: (a, b) for name, a, b in bank.matrices(bank.value_RC[slot.rows])}
    assert_identical(matrices["twin"][0], group.a_RMI[slot.rows, 1])
    assert_identical(matrices["twin"][1], group.b_RO[slot.rows, first:])
    assert bank.group(2, torch.zeros(3, 7), None).outputs == (SHAPES[1].outputs,)


def model() -> MemoryModel:
    backbone = Backbone(tiny_model("llama"))
    return memory_model(backbone, AdapterBank(backbone.shapes, CPU))


@pytest.mark.parametrize(
    ("larger", "length"),
    [
        pytest.param([a_job(rank=5)], 64, id="rank"),
        pytest.param([a_job(batch_size=2)], 64, id="batch size"),
        pytest.param([a_job()], 65, id="length"),
        pytest.param([a_job(), a_job("other", rank=1)], 64, id="one more job"),
    ],
)
def test_more_of_anything_needs_more_memory(larger: list[Job], length: int) -> None:
    assert model().bytes(larger, length) > model().bytes([a_job()], 64)


def test_accumulation_needs_no_more_memory() -> None:
    assert model().bytes([a_job(accumulation=8)], 64) == model().bytes([a_job()], 64)


def test_what_is_counted_is_at_least_what_is_known() -> None:
    """Weights, and for a unit of rank its value, gradient and two moments."""
    weights = sum(p.nbytes for p in tiny_model("llama").parameters())
    assert model().fixed == weights
    values = sum(
        i + o for i, o in [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    )
    assert model().per_rank == 2 * values * 4 * 4


def test_moments_in_8_bits_are_counted() -> None:
    """A byte for each in place of four, and two scales for each block of 256 columns."""
    plain, small = (AdapterBank(SHAPES, CPU, in_8_bits=in_8_bits) for in_8_bits in (False, True))
    assert plain.bytes_per_rank == 16 * 22
    assert small.bytes_per_rank == 10 * 22 + 2 * 4


def test_tied_weights_are_counted_once() -> None:
    backbone = Backbone(tiny_model("qwen2"))
    parameters = {p.data_ptr(): p.nbytes for p in tiny_model("qwen2").parameters()}
    assert backbone.num_bytes == sum(parameters.values())


def test_a_group_is_made_anew_when_the_bank_has_moved() -> None:
    bank = AdapterBank(SHAPES, CPU, rows=2)
    weight = torch.zeros(SHAPES[0].outputs, SHAPES[0].inputs)
    with torch.no_grad():
        group = bank.group(0, weight, None)
    assert group.a_RMI.requires_grad  # or the first adapted linear would not be trained
    assert bank.group(0, weight, None) is group
    assert bank.group(0, weight.clone(), None) is not group
    group = bank.group(0, weight, None)
    bank.reserve(5)
    moved = bank.group(0, weight, None)
    assert moved.a_RMI.shape[0] == 5
    assert moved.b_RO.data_ptr() != group.b_RO.data_ptr()
    bank.give_back(0)
    assert bank.group(0, weight, None).a_RMI.shape[0] == 0
