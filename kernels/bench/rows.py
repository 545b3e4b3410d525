"""Where figures go: rows of a profile, each with the machine that it was measured on."""

from pathlib import Path

from alto_runs.profile import Row, dump_rows

__all__ = ["KERNELS", "append"]

KERNELS = "alto-triton"  # ours, in all rows


def append(path: Path, row: Row) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(dump_rows([row]))
