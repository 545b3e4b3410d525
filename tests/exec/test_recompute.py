"""When activations are computed again: chosen from what passes of both kinds were seen to take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from alto_exec import memory
from alto_exec.bank import AdapterBank
from alto_exec.decoder import Decoder
from alto_exec.probing import Probe
from alto_policy.types import Job, Task, TaskId
from tests.exec.packed_loop import a_job, ragged_samples
from tests.exec.tiny_models import tiny_llama

LENGTH, CAPACITY = 24, 30_000_000


@dataclass(frozen=True)
class Card:
    """Bytes of a token, and seconds of a pass and of a token: kept activations, and recomputed."""

    plain: tuple[int, float, float]
    again: tuple[int, float, float]

    def probes(self, backbone: Decoder, most: int, capacity: int) -> Iterator[Probe]:
        per_token, of_pass, of_token = self.again if backbone.recompute else self.plain
        tokens = LENGTH
        while tokens * per_token <= capacity:
            yield Probe(tokens, tokens * per_token, of_pass + of_token * tokens)
            if tokens >= most:
                return
            tokens *= 2


def chosen(
    card: Card, jobs: Sequence[Job], monkeypatch: pytest.MonkeyPatch, asked: bool | None = None
) -> bool:
    def probes(
        backbone: Decoder, bank: Any, sample: Any, *, most: int, fixed: int, capacity: int
    ) -> Iterator[Probe]:
        assert len(sample.tokens) == LENGTH
        return card.probes(backbone, most, capacity - fixed)

    monkeypatch.setattr(memory, "probe_passes", probes)
    monkeypatch.setattr(memory, "evaluation_bytes", lambda *_: 0)
    monkeypatch.setattr(memory, "_usable_bytes", lambda _: CAPACITY)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    backbone = Decoder(tiny_llama()[0])
    task = Task(id=TaskId("t"), jobs=tuple(jobs), backbone="tiny", max_length=LENGTH)
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0)
    model = memory.measured_memory_model(backbone, bank, ragged_samples(), task, asked)
    assert model.passes is not None
    assert model.passes.recompute is backbone.recompute
    return backbone.recompute


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
    assert chosen(card, jobs, monkeypatch) is expected


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_asked_for_is_done(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card((TIGHT, 1.0, 0.0), (1_000, 1.3, 0.0))
    assert chosen(card, SMALL, monkeypatch, asked=asked) is asked
