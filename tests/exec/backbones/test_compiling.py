"""Before an executor trains, all is compiled that passes of its jobs will launch."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from alto_exec.adapters.bank import AdapterBank, random_state
from alto_exec.backbones import compiling
from alto_exec.backbones.compiling import compile_passes, mixes_of
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Sample
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.passes.batch import on_device
from alto_exec.passes.evaluation import Adapter, validation_losses
from alto_exec.passes.training import train_pass
from alto_kernels.lora_linear import Plan, Segment
from alto_kernels.lora_linear.tables import Tables
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId
from tests.exec.batches import a_batch
from tests.exec.tiny_models import VOCABULARY_SIZE

CPU = torch.device("cpu")
RANKS = (8, 16, 32, 64)
ranks = st.lists(st.integers(1, 256), min_size=1, max_size=6)


def a_llama() -> Any:
    """Of sizes that our kernels take."""
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def a_sample(length: int) -> Sample:
    return Sample((5,) * length, (False,) * (length // 2) + (True,) * (length - length // 2))


def tables_of(chosen: Sequence[int], rows: int = 3) -> Tables:
    segments = [
        Segment(n * rows, (n + 1) * rows, n * 256, n * 256 + rank, 1.0)
        for n, rank in enumerate(chosen)
    ]
    return Plan(len(segments) * rows, tuple(segments)).tables(CPU)


@given(ranks, st.data())
def test_jobs_of_any_ranks_are_of_a_kind_that_is_compiled(chosen: list[int], data: Any) -> None:
    """By what launches read of them, for up to eight side by side, of any two ranks."""
    known = {(t.rank_step, t.rank_width) for t in map(tables_of, mixes_of(chosen))}
    pair = st.lists(st.sampled_from(chosen), min_size=1, max_size=2)
    there = data.draw(st.lists(st.sampled_from(data.draw(pair)), min_size=1, max_size=8))
    tables = tables_of(there)
    assert (tables.rank_step, tables.rank_width) in known


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_tables_of_any_batch_are_where_kernels_count_on_them(rows: list[int]) -> None:
    starts = np.cumsum([0, *rows])
    segments = [
        Segment(int(first), int(end), 16 * n, 16 * n + 16, 1.0)
        for n, (first, end) in enumerate(pairwise(starts))
    ]
    tables = Plan(int(starts[-1]), tuple(segments)).tables(CPU)
    for table in (tables.tile_pairs, tables.pairs, tables.segments, tables.factors, tables.adds):
        assert table.data_ptr() % 16 == 0
    arrays = [np.arange(size) for size in rows]
    for array, tensor in zip(arrays, on_device(arrays, CPU), strict=True):
        assert tensor.data_ptr() % 16 == 0
        assert tensor.tolist() == array.tolist()


def a_task(length: int) -> Task:
    jobs = tuple(
        Job(id=JobId(f"{rank}x{size}"), steps=9, reports=1, hyperparameters=chosen)
        for rank in RANKS
        for size in (1, 4)
        for chosen in [Hyperparameters(rank=rank, learning_rate=1e-3, batch_size=size)]
    )
    return Task(id=TaskId("t"), jobs=jobs, backbone="tiny", max_length=length)


def compiled_late(cache: Path) -> tuple[int, list[str]]:
    """In a process of its own: how many kernels are compiled before the first pass, and which are
    by passes of many mixes and sizes."""
    os.environ["TRITON_CACHE_DIR"] = str(cache)
    from triton import knobs

    names: list[str] = []
    knobs.runtime.jit_post_compile_hook = lambda **told: names.append(told["repr"])
    device = torch.device("cuda", 0)
    model = a_llama()
    backbone = Decoder(model.to(device, torch.bfloat16))
    bank = AdapterBank(backbone.shapes, device, rows=0, dtype=torch.bfloat16)
    task = a_task(length=300)
    compile_passes(backbone, bank, task)
    before = len(names)
    rng = np.random.default_rng(0)
    examples = [a_sample(int(n)) for n in rng.integers(5, 300, 40)]
    for _ in range(25):
        jobs = [task.jobs[i] for i in rng.permutation(len(task.jobs))[: rng.integers(1, 9)]]
        slots = [bank.join(random_state(bank, job.hyperparameters.rank)) for job in jobs]
        residents = [
            Resident(replace(job, id=JobId(str(n))), slot, Progress())
            for n, (job, slot) in enumerate(zip(jobs, slots, strict=True))
        ]
        for _ in range(3):
            train_pass(backbone, bank, examples, residents)
        validation_losses(backbone, bank, examples, [Adapter.of(r) for r in residents])
        validation_losses(backbone, bank, examples, [Adapter(None)])
        for slot in slots:
            bank.leave(slot)
    return before, names[before:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="nothing is compiled without a card")
def test_nothing_is_compiled_once_an_executor_is_up(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        before, late = process.submit(compiled_late, tmp_path).result()
    assert before > 20
    assert late == []


def test_a_layer_alone_is_the_first_of_the_same_weights() -> None:
    backbone = Decoder(a_llama())
    one = backbone.of_one_layer()
    assert (one.num_layers, backbone.num_layers) == (1, 2)
    assert one.activations is not backbone.activations
    bank = AdapterBank(backbone.shapes, CPU, rows=0)
    slot = bank.join(random_state(bank, 4))
    batch, weights_N = a_batch([slot], [5], CPU)
    bank.grad_RC.fill_(1.0)
    one.train(bank, batch, weights_N)
    per_layer = bank.num_columns // 2
    assert bool((bank.grad_RC[:, :per_layer] != 1).any())
    assert bool((bank.grad_RC[:, per_layer:] == 1).all())


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "_ROWS", (64,))  # here they are computed


@pytest.mark.usefixtures("_own_cache")
def test_passes_of_nobody_leave_nothing_behind() -> None:
    backbone = Decoder(a_llama())
    bank = AdapterBank(backbone.shapes, CPU, rows=0)
    compile_passes(backbone, bank, a_task(length=30))
    assert bank.num_rows == 0
    assert backbone.replayed.passes == 0


def _of_ranks(task: Task, *ranks: int) -> Task:
    return replace(task, jobs=tuple(j for j in task.jobs if j.hyperparameters.rank in ranks))


@pytest.mark.usefixtures("_own_cache")
def test_what_was_compiled_on_a_machine_is_not_passed_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    monkeypatch.setattr(compiling, "_pass_through", lambda *_: passes.append(1))
    backbone, task = Decoder(a_llama()), a_task(length=30)

    def are_passed(task: Task, *, in_8_bits: bool = False) -> bool:
        bank = AdapterBank(backbone.shapes, CPU, rows=0, in_8_bits=in_8_bits)
        passes.clear()
        compile_passes(backbone, bank, task)
        return bool(passes)

    few, others = _of_ranks(task, 8, 16), _of_ranks(task, 8, 32)
    assert [are_passed(few), are_passed(few), are_passed(others)] == [True, False, True]
    assert are_passed(task)
    assert are_passed(few, in_8_bits=True)
    monkeypatch.setattr(compiling, "source_digest", lambda *_: "of other kernels")
    assert [are_passed(few), are_passed(few)] == [True, False]
    for mark in (tmp_path / "cache").iterdir():
        mark.unlink()
    assert are_passed(few)


@pytest.mark.usefixtures("_own_cache")
def test_what_memory_did_not_suffice_for_is_passed_through_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes: list[int] = []

    def runs_out(*_: object) -> None:
        passes.append(1)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(compiling, "_pass_through", runs_out)
    backbone, task = Decoder(a_llama()), a_task(length=30)
    for _ in range(2):
        compile_passes(backbone, AdapterBank(backbone.shapes, CPU, rows=0), task)
    assert len(passes) == 2
