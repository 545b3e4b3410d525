"""When activations are computed again: chosen from what passes of both kinds were seen to take,
and then by each pass as few as it has no room for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.dataset import Dataset, Dropped
from alto_exec.executor import Executor
from alto_exec.memory import counting
from alto_exec.memory.measuring import measured_memory_model
from alto_exec.memory.probing import Probe, Prober
from alto_exec.passes.batch import PackedBatch, Share, pack
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.weighing import FixedWeights, Weigh
from alto_policy.memory import KeptActivations, Load, MemoryModel
from alto_policy.types import Job, Task, TaskId
from alto_runs.files.directory import RunDirectory
from tests.exec.batches import a_batch
from tests.exec.comparing import assert_identical, assert_same_training, in_double_precision
from tests.exec.packed_loop import a_job, ragged_samples
from tests.exec.test_executor import TRAIN, VALIDATION, Story, finish
from tests.exec.tiny_models import tiny_llama

LAYERS = 4
LENGTH, CAPACITY = 24, 30_000_000


@dataclass(frozen=True)
class Card:
    """Bytes of a token, and seconds of a pass and of a token: kept activations, and recomputed."""

    plain: tuple[int, float, float]
    again: tuple[int, float, float]

    def probes(self, backbone: FrozenModel, most: int, capacity: int) -> Iterator[Probe]:
        per_token = self.here(backbone)[0]
        tokens = LENGTH
        while tokens * per_token <= capacity:
            yield Probe(tokens, tokens * per_token)
            if tokens >= most:
                return
            tokens *= 2

    def here(self, backbone: FrozenModel) -> tuple[int, float, float]:
        return self.again if backbone.activations.recompute else self.plain


def chosen(
    card: Card,
    jobs: Sequence[Job],
    monkeypatch: pytest.MonkeyPatch,
    asked: bool | None = None,
    memory_gb: float | None = None,
) -> MemoryModel:
    def sizes(self: Prober, *, most: int, capacity: int) -> Iterator[Probe]:
        assert len(self.sample.tokens) == LENGTH
        return card.probes(self.backbone, most, capacity - self.fixed)

    def seconds(self: Prober, tokens: int) -> float:
        of_pass, of_token = card.here(self.backbone)[1:]
        return of_pass + of_token * tokens

    monkeypatch.setattr(Prober, "sizes", sizes)
    monkeypatch.setattr(Prober, "seconds", seconds)
    monkeypatch.setattr(Prober, "evaluation_bytes", lambda _: 0)
    monkeypatch.setattr(counting, "_usable_bytes", lambda _: CAPACITY)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    backbone = Decoder(tiny_llama()[0])
    task = Task(id=TaskId("t"), jobs=tuple(jobs), backbone="tiny", max_length=LENGTH)
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0)
    limit = None if memory_gb is None else int(1e9 * memory_gb)
    model = measured_memory_model(backbone, bank, ragged_samples(), task, asked, limit)
    assert backbone.activations.recompute is (asked is True)
    assert model.passes is not None
    return model


SMALL = [a_job(f"j{i}") for i in range(64)]
LARGE = [*SMALL, a_job("large", batch_size=64)]
ROOMY, TIGHT = 1_000, 30_000  # bytes a token: everything fits; some 300 tokens do


@pytest.mark.parametrize(
    ("card", "jobs", "expected"),
    [
        pytest.param(
            Card((ROOMY, 1.0, 0.0), (100, 1.3, 0.0)), SMALL, False, id="there is room for all"
        ),
        pytest.param(
            Card((TIGHT, 0.0, 0.1), (1_000, 0.0, 0.13)),
            LARGE,
            True,
            id="a job fits in no other way",
        ),
        pytest.param(
            Card((TIGHT, 0.0, 0.1), (1_000, 0.0, 0.13)), SMALL, False, id="a full card is slower so"
        ),
        pytest.param(
            Card((TIGHT, 0.3, 0.0), (1_000, 1.0, 0.0)), SMALL, False, id="that takes too long"
        ),
        pytest.param(
            Card((TIGHT, 1.0, 0.0), (1_000, 1.3, 0.0)),
            SMALL,
            True,
            id="more jobs at once are faster",
        ),
    ],
)
def test_recomputation_is_chosen_where_it_pays(
    card: Card, jobs: list[Job], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are then admitted by what they hold with it, and passes with room keep activations."""
    model = chosen(card, jobs, monkeypatch)
    assert model.passes is not None
    assert model.passes.recompute is expected
    assert (model.kept is not None) is expected
    if model.kept is not None:
        assert model.kept.passes is not None
        assert not model.kept.passes.recompute
        few, many = (model.layers_again(Load(1, 4, n, 4 * n, 4), 2) for n in (24, 24 * 2_000))
        assert (few, many) == (0, 2)


@pytest.mark.parametrize(
    ("jobs", "recorded", "tried"),
    [
        pytest.param(SMALL, 100, False, id="those that fit keep the device busy"),
        pytest.param(SMALL, 2_000, True, id="a few more rows cost nothing"),
        pytest.param(SMALL, 0, True, id="nothing is known of launches"),
        pytest.param(LARGE, 100, True, id="a job does not fit by itself"),
        pytest.param(SMALL[:8], 2_000, False, id="all fit"),
    ],
)
def test_recomputed_passes_are_tried_where_they_may_be_faster(
    jobs: list[Job], recorded: int, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some 1,000 tokens have room."""
    card = Card((TIGHT, 1.0, 0.0), (1_000, 1.3, 0.0))
    seen: set[bool] = set()
    here = Card.here

    def noting(self: Card, backbone: Decoder) -> tuple[int, float, float]:
        seen.add(backbone.activations.recompute)
        return here(self, backbone)

    monkeypatch.setattr(Card, "here", noting)
    monkeypatch.setattr(Decoder, "most_recorded_tokens", recorded)
    chosen(card, jobs, monkeypatch)
    assert (True in seen) is tried


def test_a_study_that_allows_less_memory_than_there_is_decides_by_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Card((ROOMY, 1.0, 0.0), (100, 1.3, 0.0))
    model = chosen(card, SMALL, monkeypatch, memory_gb=0.0006)
    assert model.capacity == 600_000 < CAPACITY
    assert model.kept is not None
    assert model.passes is not None
    assert max(tokens for tokens, _ in model.passes.peaks) <= 6_000, "no more was tried"


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_asked_for_is_done(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card((TIGHT, 1.0, 0.0), (1_000, 1.3, 0.0))
    model = chosen(card, SMALL, monkeypatch, asked=asked)
    assert model.kept is None
    assert model.layers_again(Load(1, 4, 24, 96, 4), 2) == (2 if asked else 0)


# A token takes 1,000 bytes with its activations, 100 without.
BOTH = MemoryModel(
    capacity=20_000,
    fixed=0,
    per_rank=0,
    per_token=100,
    kept=KeptActivations(per_token=1_000),
)
STORY = (
    a_job("steady", batch_size=2, accumulation=2, steps=5),
    a_job("wide", rank=9, batch_size=3, seed=1),
    a_job("dropped", rank=2, dropout=0.4, steps=6, seed=2),
)


class Watched(Decoder):
    """Tells of each pass its tokens and the layers that are computed again, and is out of memory
    where more than `most` tokens are kept by two layers."""

    def __init__(self, memory: MemoryModel | None, most: int | None = None) -> None:
        super().__init__(tiny_llama(layers=LAYERS)[0])
        self.told: list[tuple[int, int]] = []
        self.most = most
        self.fails_at: int | None = None  # a pass, however little it keeps
        if memory is not None:
            self.activations.follow(memory)

    def _train(
        self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh, layers_again: int = 0
    ) -> Tensor:
        """Gradients have been added by then."""
        found, tokens = super()._train(bank, batch, weigh, layers_again), len(batch.tokens_T)
        self.told.append((tokens, layers_again))
        is_too_much = self.most is not None and tokens > self.most
        if len(self.told) == self.fails_at or (is_too_much and LAYERS - layers_again >= 2):
            raise torch.OutOfMemoryError
        return found


def trained(backbone: Decoder, folder: Path, jobs: Sequence[Job] = STORY) -> Story:
    data = Dataset(tuple(TRAIN), tuple(VALIDATION), Dropped(0, 0), 0)
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0)
    executor = Executor(backbone, data, RunDirectory(folder), bank=bank, is_durable=False)
    story = Story()
    for each in jobs:
        story.hear(executor.launch(each))
    finish(executor, story)
    return story


def assert_same(story: Story, other: Story) -> None:
    assert story.reports.keys() == other.reports.keys()
    for name in other.reports:
        assert_same_training(story.losses(name), other.losses(name), bitwise=True, what=name)


def test_a_pass_computes_again_what_it_has_no_room_for_and_nothing_is_changed(
    tmp_path: Path,
) -> None:
    with in_double_precision():
        kept, mixed = Watched(None), Watched(BOTH)
        expected, found = trained(kept, tmp_path / "kept"), trained(mixed, tmp_path / "mixed")
    assert_same(found, expected)
    assert [tokens for tokens, _ in mixed.told] == [tokens for tokens, _ in kept.told]
    assert {again for _, again in kept.told} == {0}
    assert {again for _, again in mixed.told} >= {0, 1, LAYERS}
    for tokens, again in mixed.told:
        saved = 900 * tokens * again / LAYERS
        assert 1_000 * tokens - saved <= BOTH.capacity or again == LAYERS
        assert again == 0 or 1_000 * tokens - saved * (again - 1) / again > BOTH.capacity


def test_memory_that_runs_out_makes_passes_keep_less_and_costs_no_job(tmp_path: Path) -> None:
    roomy = replace(BOTH, capacity=1_000_000)
    with in_double_precision():
        expected = trained(Watched(None), tmp_path / "kept")
        short = Watched(roomy, most=50)
        found = trained(short, tmp_path / "short")
    assert_same(found, expected)
    failed = [told for told in short.told if told[0] > 50 and LAYERS - told[1] >= 2]
    assert 1 <= len(failed) <= 12
    assert short.told[-1][1] == 0, "small passes keep theirs"


def test_a_step_whose_second_pass_fails_begins_anew(tmp_path: Path) -> None:
    jobs = (a_job("steady", batch_size=2, accumulation=3, steps=5),)
    with in_double_precision():
        expected = trained(Watched(None), tmp_path / "kept", jobs)
        short = Watched(replace(BOTH, capacity=1_000_000))
        short.fails_at = 2
        found = trained(short, tmp_path / "short", jobs)
    assert_same(found, expected)
    assert len(short.told) == 15 + 2, "the failed pass and the one before it are made again"


def test_where_all_is_computed_again_memory_runs_out_as_ever(tmp_path: Path) -> None:
    backbone = Watched(replace(BOTH, capacity=0), most=0)
    assert not backbone.activations.give_way(), "no pass was made"
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0)
    slot = bank.join(bank.fresh(4, 0))
    batch = pack([Share(tuple(ragged_samples(2)), slot)], backbone.device)
    backbone.train(bank, batch, FixedWeights.none(batch))
    assert backbone.told[-1][1] == LAYERS
    assert not backbone.activations.give_way()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="kernels of a card")
def test_on_a_card_layers_that_are_computed_again_change_no_bit() -> None:
    model: Any = tiny_llama(layers=LAYERS)[0]
    backbone = Decoder(model.to("cuda", torch.bfloat16))
    bank = AdapterBank(backbone.shapes, backbone.device, rows=12, dtype=backbone.dtype)
    slots = [bank.join(bank.fresh(4, seed)) for seed in range(3)]
    found = []
    for again in range(LAYERS + 1):
        bank.grad_RC.zero_()
        backbone.activations.agreed = again
        losses_N = backbone.train(bank, *a_batch(slots, (90, 33, 200), backbone.device))
        found.append((losses_N.clone(), bank.grad_RC.clone()))
    assert found[0][1].any()
    for one in found[1:]:
        for values, expected in zip(one, found[0], strict=True):
            assert_identical(values, expected)
