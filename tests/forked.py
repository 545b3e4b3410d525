"""Processes that are forked from one with the libraries loaded: there is one for all tests."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from alto_service.serving import PRELOADED

__all__ = ["forked"]

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
