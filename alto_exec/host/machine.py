"""What this machine trains on: chosen once, written into the run, the same when it is resumed."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from alto_exec.host.thread_count import best_thread_count
from alto_policy.types import Gpu, GpuId
from alto_runs.errors import UserError
from alto_runs.study import ExecutorSpec
from alto_runs.versions import TRAINING_CODE, source_digest, versions

__all__ = ["device_of", "dtype_of", "facts", "gpu_of", "processor", "settle"]

_PROCESSORS = Path("/proc/cpuinfo")
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


def processor() -> str:
    """The model of this host's, which several hosts may have; their names are nobody's business."""
    lines = _PROCESSORS.read_text().splitlines() if _PROCESSORS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def facts(spec: ExecutorSpec, gpus: Sequence[Gpu], kernel: str) -> tuple[tuple[str, str], ...]:
    """For the header of a log: what ran on what, and how busy that was when it began."""
    known: Mapping[str, str] = {
        "device": ", ".join(dict.fromkeys(gpu.kind for gpu in gpus)),
        "dtype": spec.dtype,
        "threads": str(spec.threads),
        "recompute": _RECOMPUTE[spec.recompute],
        "optimizer states": spec.optimizer_states,
        "frozen weights": spec.frozen_weights,
        "kernel": kernel,
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load before": f"{os.getloadavg()[0]:.2f}",  # runnable threads, over the last minute
        TRAINING_CODE: source_digest("alto_exec", "alto_kernels"),
        **versions("torch", "transformers", "triton" if spec.device == "cuda" else "numpy"),
    }
    return tuple(known.items())
