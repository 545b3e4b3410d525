"""AdamW on the rows of many jobs in one bank, each with its own rates and step count."""

from alto_kernels.adamw.plan import Bank, Moments, Update
from alto_kernels.adamw.reference import adamw_ref
from alto_kernels.adamw.update import adamw

__all__ = ["Bank", "Moments", "Update", "adamw", "adamw_ref"]
