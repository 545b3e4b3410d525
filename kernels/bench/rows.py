"""Where figures go: one JSON object a line, each with what it was measured on."""

import json
from collections.abc import Mapping
from pathlib import Path
from subprocess import run

import torch
import triton

__all__ = ["Rows"]


class Rows:
    """Appends to a file; every row names card, driver, versions and commit."""

    def __init__(self, path: Path, commit: str) -> None:
        self._path = path
        self._machine = {
            "card": torch.cuda.get_device_name(),
            "driver": _driver(),
            "torch": torch.__version__,
            "triton": triton.__version__,
            "commit": commit,
        }

    def add(self, row: Mapping[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, **self._machine}) + "\n")


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return run(query, capture_output=True, text=True, check=True).stdout.split()[0]
