"""What the data sheets promise, to carry measurements of one GPU over to another."""

import re
from dataclasses import dataclass

from alto_runs.errors import UserError

__all__ = ["DATA_SHEETS", "DataSheet", "sheet_of"]


@dataclass(frozen=True, slots=True)
class DataSheet:
    """Peak rates as the vendor prints them, without sparsity."""

    name: str
    flops_per_second: float  # dense bfloat16 with float32 sums
    bytes_per_second: float
    memory: int  # bytes


# NVIDIA's data sheets of each card (H100: 2023-03, H200: 2024-11, B200: 2024-11, A100: 2021-06,
# L40S: 2023-10, L4: 2023-03, RTX 4090: Ada whitepaper 2022-09).
DATA_SHEETS = (
    DataSheet("H100", 989e12, 3.35e12, 80_000_000_000),
    DataSheet("H100-PCIe", 756e12, 2.0e12, 80_000_000_000),
    DataSheet("H200", 989e12, 4.8e12, 141_000_000_000),
    DataSheet("B200", 2250e12, 8.0e12, 180_000_000_000),
    DataSheet("A100", 312e12, 2.039e12, 80_000_000_000),
    DataSheet("A100-40GB", 312e12, 1.555e12, 40_000_000_000),
    DataSheet("L40S", 362e12, 0.864e12, 48_000_000_000),
    DataSheet("L4", 121e12, 0.3e12, 24_000_000_000),
    DataSheet("RTX-4090", 165e12, 1.008e12, 24_000_000_000),
)

_DRIVER_NAMES = (
    (r"H100.*(80GB HBM3|SXM)", "H100"),
    (r"H100.*PCIe", "H100-PCIe"),
    (r"A100.*40GB", "A100-40GB"),
    (r"A100.*80GB", "A100"),
    (r"RTX 4090$", "RTX-4090"),
    (r"(H200|B200|L40S|L4)$", None),
)


def sheet_of(gpu: str) -> DataSheet:
    """By the name used here or by the driver's; raises UserError with the names that are known."""
    name = gpu.strip()
    for pattern, short in _DRIVER_NAMES:
        if found := re.search(pattern, name):
            name = short or found.group(1)
            break
    for sheet in DATA_SHEETS:
        if sheet.name.lower() == name.lower():
            return sheet
    known = ", ".join(sheet.name for sheet in DATA_SHEETS)
    raise UserError(f"gpu: value {gpu!r}: no data sheet of it, expected one of {known}")
