"""What measurements are taken on, as every row of a profile carries it."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from alto_runs.profile import Machine
from alto_runs.versions import versions

__all__ = ["this_machine"]

_PROCESSORS = Path("/proc/cpuinfo")


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
    lines = _PROCESSORS.read_text().splitlines() if _PROCESSORS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(done.stdout.split()), None)
