"""The paper's exact placement of rigid tasks, by OR-tools' CP-SAT (the extra `placement`).

An improver for `alto_policy.planner.Planner`: it takes a plan's order and gives one that is no
worse. One worker, a fixed seed and a deterministic limit: the same tasks give the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from alto_policy.placement import Item, Pool, bound, makespan, schedule
from alto_runs.errors import UserError

__all__ = ["CpSat"]

_TICKS = 20_000  # the horizon in integers: half a thousandth of a per cent of rounding each


@dataclass(frozen=True, slots=True, kw_only=True)
class CpSat:
    """`limit` is in CP-SAT's deterministic seconds, about as long as real ones on one core."""

    limit: float = 10.0
    seed: int = 0

    def __call__(self, items: Sequence[Item], pool: Pool, order: Sequence[int]) -> tuple[int, ...]:
        """Makespan alone; raises UserError where OR-tools is not installed."""
        hint = schedule(order, items, pool)
        horizon = makespan(order, items, pool)
        if len(items) < 2 or horizon <= bound(items, pool) * (1 + 1e-9):
            return tuple(order)
        starts = self._solve(items, pool, hint, horizon)
        if starts is None:
            return tuple(order)
        rank = {index: place for place, index in enumerate(order)}
        found = tuple(sorted(range(len(items)), key=lambda i: (starts[i], rank[i])))
        return found if makespan(found, items, pool) < horizon else tuple(order)

    def _solve(
        self, items: Sequence[Item], pool: Pool, hint: Sequence[float], horizon: float
    ) -> list[int] | None:
        try:
            from ortools.sat.python import cp_model
        except ImportError as error:
            raise UserError(
                "placement: CP-SAT needs OR-tools, expected `pip install alto-lora[placement]`"
            ) from error
        tick = horizon / _TICKS
        model = cp_model.CpModel()
        latest = _TICKS + len(items)
        end = model.new_int_var(int(bound(items, pool) / tick), latest, "end")
        starts, intervals, widths = [], [], []
        for number, item in enumerate(items):
            ticks = max(1, round(item.seconds / tick))
            start = model.new_int_var(0, latest, f"start {number}")
            model.add(start + ticks <= end)
            model.add_hint(start, round(hint[number] / tick))
            intervals.append(model.new_fixed_size_interval_var(start, ticks, f"task {number}"))
            starts.append(start)
            widths.append(item.width)
        for seconds, width in pool.releases:
            held = max(1, round(seconds / tick))
            intervals.append(model.new_fixed_size_interval_var(0, held, "held"))
            widths.append(width)
        model.add_cumulative(intervals, widths, pool.gpus)
        model.minimize(end)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        solver.parameters.max_deterministic_time = self.limit
        status = solver.solve(model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return [solver.value(start) for start in starts]
