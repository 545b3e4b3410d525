"""What measurements are taken on, as every row of a profile carries it."""

import subprocess
from datetime import UTC, datetime

import torch

from alto_exec.host.machine import processor
from alto_runs.profile import Machine
from alto_runs.versions import versions

__all__ = ["this_machine"]


def this_machine(device: torch.device, source: str, commit: str | None = None) -> Machine:
    """The device at hand; `source` tells how it was measured. Without `commit` that of the
    checkout, if this is one."""
    known = versions("torch", "triton")
    is_cuda = device.type == "cuda"
    return Machine(
        gpu=torch.cuda.get_device_name(device) if is_cuda else _processor(),
        driver=_driver() if is_cuda else None,
        cuda=torch.version.cuda if is_cuda else None,
        torch=torch.__version__,
        triton=known["triton"] if is_cuda else None,
        commit=commit or known.get("commit"),
        date=datetime.now(UTC).date().isoformat(),
        source=source,
    )


def _processor() -> str:
    """Times depend on the threads as much as on the processor."""
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(done.stdout.split()), None)
