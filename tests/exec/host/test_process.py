"""What an executor asks of its process."""

import gc
import os
import weakref
from contextlib import nullcontext

import pytest
import torch

from alto_exec.host import process
from alto_exec.host.machine import device_of
from alto_exec.host.process import (
    pin_ahead,
    pin_by_many_threads,
    spare_what_lives,
    take_back_what_is_spared,
)
from alto_runs.study import ExecutorSpec


class InCycle:
    def __init__(self) -> None:
        self.itself = self


def settings() -> str:
    return str(torch._C._accelerator_getAllocatorSettings())


def test_threads_pin_side_by_side_and_what_the_user_chose_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = settings()
    try:
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:512")
        pin_by_many_threads()
        chosen, *ours = settings().split(",")
        assert chosen == "max_split_size_mb:512"
        assert ours[0] == "pinned_use_cuda_host_register:True"
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "pinned_num_register_threads:1")
        torch._C._accelerator_setAllocatorSettings("pinned_num_register_threads:1")
        pin_by_many_threads()
        assert settings() == "pinned_num_register_threads:1"
    finally:
        torch._C._accelerator_setAllocatorSettings(before)


@pytest.mark.parametrize("lacks", [False, True])
def test_no_more_is_page_locked_ahead_than_a_part_of_the_host(
    lacks: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A host that has less of it than that goes on without."""
    pinned: list[int] = []

    def empty(size: int, *, dtype: torch.dtype, pin_memory: bool) -> None:
        if lacks and pinned:
            raise RuntimeError("no more")
        assert pin_memory
        pinned.append(size * dtype.itemsize)

    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": 800}[name])
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch, "empty", empty)
    pin_ahead([100, 40, 3, 9], torch.device("cuda", 0)).join()
    assert pinned == ([100] if lacks else [100, 40, 3])
    assert bool(caplog.records) == lacks


@pytest.mark.parametrize("lives_on", [True, False])
def test_what_is_spared_is_taken_back_when_another_backbone_comes(
    lives_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for only where it lives on: that takes a third of a second."""
    monkeypatch.setattr(process, "_spared", weakref.WeakSet())  # without those of other tests
    gc.collect()
    collect, collections = gc.collect, [0]

    def counted() -> int:
        collections[0] += 1
        return collect()

    try:
        stopped = InCycle()
        gone = weakref.ref(stopped)
        spare_what_lives(stopped)
        assert gc.get_freeze_count()
        if not lives_on:
            del stopped.itself
        del stopped
        gc.collect()
        assert (gone() is not None) == lives_on
        monkeypatch.setattr(gc, "collect", counted)
        take_back_what_is_spared()
        assert gone() is None
        assert collections[0] == lives_on
        assert not gc.get_freeze_count()
    finally:
        gc.unfreeze()


def test_a_device_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are loaded in threads, where `cuda` alone would be the first GPU."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert device_of(ExecutorSpec(device="cuda")) == torch.device("cuda:1")
    assert device_of(ExecutorSpec(device="cpu")) == torch.device("cpu")
