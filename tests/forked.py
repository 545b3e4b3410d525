"""Processes that are forked from one with the libraries loaded: there is one for all tests."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from alto_service.serving import PRELOADED

__all__ = ["forked", "go_on", "wait_for_stop"]

_PATIENCE_SECONDS = 300

_CONTEXT = multiprocessing.get_context("forkserver")
_LOADED = [
    *PRELOADED,
    "alto_exec.team.launched",
    "alto_exec.ray_cluster.node.duty",
    "alto_exec.ray_cluster.node.zygote",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
]


def forked(work: Callable[..., object], *args: Any, **kwargs: Any) -> BaseProcess:
    """One that does the work, not started yet; it does not outlive this one."""
    _CONTEXT.set_forkserver_preload(_LOADED)
    return _CONTEXT.Process(target=work, args=args, kwargs=kwargs, daemon=True)


def wait_for_stop(process: BaseProcess) -> None:
    """One that stops itself, so that nothing of it goes on however late whoever waits for it is."""
    assert process.pid is not None
    its, deadline = psutil.Process(process.pid), time.monotonic() + _PATIENCE_SECONDS
    while (status := its.status()) != psutil.STATUS_STOPPED:
        assert status != psutil.STATUS_ZOMBIE, "it has ended before"
        assert time.monotonic() < deadline, "nothing happens any more"
        time.sleep(0.02)


def go_on(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)
