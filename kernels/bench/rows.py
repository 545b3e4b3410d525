"""Where figures go: rows of a profile, each with the machine that it was measured on."""

from datetime import UTC, datetime
from pathlib import Path
from subprocess import run

import torch
import triton

from alto_runs.profile import Machine, Row, dump_rows

__all__ = ["KERNELS", "append", "this_machine"]

KERNELS = "alto-triton"  # ours, in all rows


def this_machine(commit: str, source: str) -> Machine:
    """The card at hand; `source` tells how it was measured."""
    return Machine(
        gpu=torch.cuda.get_device_name(),
        driver=_driver(),
        cuda=torch.version.cuda,
        torch=torch.__version__,
        triton=triton.__version__,
        commit=commit,
        date=datetime.now(UTC).date().isoformat(),
        source=source,
    )


def append(path: Path, row: Row) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(dump_rows([row]))


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return run(query, capture_output=True, text=True, check=True).stdout.split()[0]
