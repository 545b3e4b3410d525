"""What this machine trains on: chosen once, written into the run, the same when it is resumed."""

import os
import platform
import time
from collections.abc import Mapping, Sequence

import torch

from alto_exec.process import keep_the_order_of_sums
from alto_policy.types import Gpu, GpuId
from alto_runs.errors import UserError
from alto_runs.study import ExecutorSpec
from alto_runs.versions import TRAINING_CODE, source_digest, versions

__all__ = ["best_thread_count", "device_of", "dtype_of", "facts", "gpu_of", "settle"]

_RECOMPUTE = {None: "as the memory model chooses", True: "always", False: "never"}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def settle(
    spec: ExecutorSpec, *, has_cuda: bool | None = None, threads: int | None = None
) -> ExecutorSpec:
    """Every choice that the study leaves open, on a machine that `has_cuda`, or on this one; the
    best number of `threads` is measured unless it is known.

    Raises UserError for a device that is not there.
    """
    if has_cuda is None:
        has_cuda = torch.cuda.is_available()
    if spec.device == "cuda" and not has_cuda:
        raise UserError("executor.device: value 'cuda': no CUDA device is visible here")
    device = spec.device
    if device == "auto":
        device = "cuda" if has_cuda else "cpu"
    dtype = spec.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    best = spec.threads or (1 if device == "cuda" else threads or best_thread_count())
    chosen = {"device": device, "dtype": dtype, "threads": best, "gpus": spec.gpus or 1}
    return spec.model_copy(update=chosen)


def device_of(spec: ExecutorSpec) -> torch.device:
    """Of this thread, by its number: to the threads in which libraries load weights, `cuda` alone
    is the first GPU, whichever was set."""
    if spec.device != "cuda":
        return torch.device(spec.device)
    return torch.device("cuda", torch.cuda.current_device())


def dtype_of(spec: ExecutorSpec) -> torch.dtype:
    return _DTYPES[spec.dtype]


def gpu_of(spec: ExecutorSpec) -> Gpu:
    """The one device of a run on this machine."""
    kind = torch.cuda.get_device_name() if spec.device == "cuda" else "cpu"
    return Gpu(id=GpuId(0), kind=kind, node=platform.node() or "local")


def facts(spec: ExecutorSpec, gpus: Sequence[Gpu], kernel: str) -> tuple[tuple[str, str], ...]:
    """For the header of a log: what ran on what."""
    known: Mapping[str, str] = {
        "device": ", ".join(dict.fromkeys(gpu.kind for gpu in gpus)),
        "dtype": spec.dtype,
        "threads": str(spec.threads),
        "recompute": _RECOMPUTE[spec.recompute],
        "optimizer states": spec.optimizer_states,
        "frozen weights": spec.frozen_weights,
        "kernel": kernel,
        TRAINING_CODE: source_digest("alto_exec", "alto_kernels"),
        **versions("torch", "transformers", "triton" if spec.device == "cuda" else "numpy"),
    }
    return tuple(known.items())


def best_thread_count() -> int:
    """Measured: on a shared machine a second thread may cost ten times what it gives.

    A product of the size of a small model's layer, since that is what a pass is made of.
    """
    available = len(os.sched_getaffinity(0))
    keep_the_order_of_sums()
    before = torch.get_num_threads()
    x, w = torch.randn(512, 576), torch.randn(1536, 576)
    seconds = {}
    try:
        for count in sorted({1, available // 2, available} - {0}):
            torch.set_num_threads(count)
            seconds[count] = min(_time_products(x, w) for _ in range(5))
    finally:
        torch.set_num_threads(before)
    return min(seconds, key=lambda count: seconds[count])


def _time_products(x: torch.Tensor, w: torch.Tensor) -> float:
    start = time.perf_counter()
    for _ in range(10):
        torch.nn.functional.linear(x, w)
    return time.perf_counter() - start
