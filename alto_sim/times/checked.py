"""Times are no less than nothing."""

from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["check_seconds"]


def check_seconds(times: "DataclassInstance") -> None:
    """Raises ValueError for a number of theirs that is negative."""
    values = (getattr(times, field.name) for field in fields(times))
    if min((value for value in values if isinstance(value, int | float)), default=0) < 0:
        raise ValueError(f"seconds must not be negative, got {times}")
