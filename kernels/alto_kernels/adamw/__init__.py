"""AdamW on a bank of rows, in which every job has rates, moments and a step count of its own."""

from alto_kernels.adamw.plan import Bank, JobStep
from alto_kernels.adamw.reference import adamw_ref
from alto_kernels.adamw.step import adamw

__all__ = ["Bank", "JobStep", "adamw", "adamw_ref"]
