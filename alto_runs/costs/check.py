"""How well a profile predicts what it has not seen: each row is left out once."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from alto_runs.costs.step_profile import Basis, StepProfile, work_of_row
from alto_runs.errors import UserError
from alto_runs.profile import Row, StepRow

__all__ = ["Check", "LeftOut", "check_profile", "check_text"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A measured pass, and what the other rows say of it."""

    row: StepRow
    seconds: float
    spread: float
    basis: Basis
    bytes: float | None  # None if it did not tell them, or no other row of its kernels did

    @property
    def error(self) -> float:
        """Relative: 0.1 is 10 % too long."""
        return self.seconds / self.row.seconds - 1

    @property
    def deviations(self) -> float:
        """By how many of its stated spreads it is off."""
        return abs(math.log(self.seconds / self.row.seconds)) / self.spread

    @property
    def bytes_error(self) -> float | None:
        if self.bytes is None or self.row.peak_bytes is None:
            return None
        return self.bytes / self.row.peak_bytes - 1


@dataclass(frozen=True, slots=True)
class Check:
    """Over all rows, and over those between others of their model: a promise is made for these."""

    rows: tuple[LeftOut, ...]
    median_error: float
    worst_error: float
    median_inside: float | None  # None if no row stands between others
    worst_inside: float | None

    @property
    def within_twice(self) -> float:
        """Share of the rows that are off by no more than two of their spreads: 95 % if those are
        honest."""
        return sum(each.deviations <= 2 for each in self.rows) / len(self.rows)


def check_profile(rows: Iterable[Row], source: str = "profile") -> Check:
    """Raises UserError if there is no kind of kernels with two rows or more."""
    rows = tuple(rows)
    found = tuple(
        _left_out(row, rows) for row in rows if isinstance(row, StepRow) and _has_peer(row, rows)
    )
    if not found:
        kinds = ", ".join(sorted({type(row).__name__ for row in rows}))
        raise UserError(
            f"{source}: expected two StepRows or more of the same kernels and GPU, got {kinds}"
        )
    errors = [abs(each.error) for each in found]
    inside = [abs(each.error) for each in found if each.basis is Basis.MEASURED]
    return Check(
        rows=found,
        median_error=median(errors),
        worst_error=max(errors),
        median_inside=median(inside) if inside else None,
        worst_inside=max(inside, default=None),
    )


def check_text(check: Check) -> str:
    """A table for a terminal, the worst rows of each kind of kernels first, and a summary."""
    lines = [f"{'model':<16}{'kernels':<22}{'jobs':>5}{'batch':>6}{'length':>7}"]
    lines[0] += f"{'rank':>5}{'measured':>12}{'predicted':>12}{'error':>9}{'spread':>8}  basis"
    for each in sorted(check.rows, key=lambda each: (each.row.kernels, -abs(each.error))):
        row = each.row
        lines.append(
            f"{row.model.name:<16}{row.kernels:<22}{row.jobs:>5}{row.batch_size:>6}{row.length:>7}"
            f"{row.rank:>5}{row.seconds:>10.4f} s{each.seconds:>10.4f} s{each.error:>+8.1%}"
            f"{each.spread:>7.0%}  {each.basis.value}"
        )
    lines.append(
        f"{len(check.rows)} rows left out one at a time: median error {check.median_error:.1%}, "
        f"worst {check.worst_error:.1%}, {check.within_twice:.0%} within twice their spread"
    )
    if check.median_inside is not None and check.worst_inside is not None:
        lines.append(
            f"between measurements: median {check.median_inside:.1%}, "
            f"worst {check.worst_inside:.1%}"
        )
    if told := [abs(e) for each in check.rows if (e := each.bytes_error) is not None]:
        lines.append(f"bytes of {len(told)}: median {median(told):.1%}, worst {max(told):.1%}")
    return "\n".join(lines) + "\n"


def _left_out(row: StepRow, rows: Sequence[Row]) -> LeftOut:
    others = [other for other in rows if other is not row]
    profile = StepProfile(others, gpu=row.machine.gpu, kernels=row.kernels, recompute=row.recompute)
    work = work_of_row(row)
    found = profile.seconds(work)
    held = profile.bytes(work).value if row.peak_bytes is not None and _tell(row, others) else None
    return LeftOut(row, found.value, found.spread, found.basis, held)


def _tell(row: StepRow, others: Sequence[Row]) -> bool:
    """Whether any of the same kernels tells its bytes."""
    return any(
        isinstance(other, StepRow) and other.peak_bytes is not None and _has_peer(row, (other,))
        for other in others
    )


def _has_peer(row: StepRow, rows: Sequence[Row]) -> bool:
    return any(
        other is not row
        and isinstance(other, StepRow)
        and other.kernels == row.kernels
        and other.machine.gpu == row.machine.gpu
        for other in rows
    )
