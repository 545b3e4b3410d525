"""The paper's exact placement of rigid tasks, by OR-tools' CP-SAT (the extra `placement`).

An improver for `alto_policy.placement.planner.Planner`: it takes a plan's order and gives one that
is no worse. One worker, a fixed seed and a deterministic limit: the same tasks give the same order.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alto_policy.placement.on_kinds import Lanes, OnKinds, Slot, ends_first, schedule_on_kinds
from alto_policy.placement.plans import Item, Pool, bound, makespan, schedule
from alto_runs.errors import UserError

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

    _Holding = tuple[cp_model.IntervalVar, int | cp_model.IntVar]
    _Placed = tuple[cp_model.IntVar, list[tuple[int, cp_model.IntVar | None]]]

__all__ = ["CpSat"]

_TICKS = 20_000  # the horizon in integers: half a thousandth of a per cent of rounding each
_NEAR = 1e-9


@dataclass(frozen=True, slots=True)
class _Asked:
    """A task, and where a plan has it."""

    width: int
    on: OnKinds
    hint: Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class CpSat:
    """`limit` is in CP-SAT's deterministic seconds, about as long as real ones on one core."""

    limit: float = 10.0
    seed: int = 0

    def __call__(self, items: Sequence[Item], pool: Pool, order: Sequence[int]) -> tuple[int, ...]:
        """Makespan alone; raises UserError where OR-tools is not installed."""
        horizon, least = makespan(order, items, pool), bound(items, pool)
        if len(items) < 2 or horizon <= least * (1 + _NEAR):
            return tuple(order)
        asked = [
            _Asked(item.width, OnKinds(((0, item.seconds),)), Slot(start, 0, start + item.seconds))
            for item, start in zip(items, schedule(order, items, pool), strict=True)
        ]
        found = self._solve(asked, [pool], horizon, least)
        if found is None:
            return tuple(order)
        again = _by_start(found, order)
        return again if makespan(again, items, pool) < horizon else tuple(order)

    def on_kinds(
        self,
        items: Sequence[Item],
        times: Sequence[OnKinds],
        lanes: Lanes,
        order: Sequence[int],
        chosen: Sequence[int | None],
    ) -> tuple[Sequence[int], Sequence[int | None]]:
        """The same where a task may be on several kinds: those of them that are `chosen`, by the
        last solution, are a hint."""

        def planned(by: Sequence[int], kinds: Sequence[int | None]) -> tuple[float, list[Slot]]:
            only = [on.only(kind) for on, kind in zip(times, kinds, strict=True)]
            slots = schedule_on_kinds(by, items, only, lanes)
            return max([slot.end for slot in slots]), slots

        none = [None] * len(items)
        plans = [(*planned(order, kinds), order, kinds) for kinds in (none, chosen)]
        horizon, slots, order, chosen = min(plans, key=lambda plan: plan[0])
        alone = [ends_first(i.width, on, lanes).end for i, on in zip(items, times, strict=True)]
        if len(items) < 2 or horizon <= max(alone) * (1 + _NEAR):
            return order, chosen
        asked = [
            _Asked(item.width, on, slot) for item, on, slot in zip(items, times, slots, strict=True)
        ]
        found = self._solve(asked, [_pool(lane) for lane in lanes], horizon, max(alone))
        if found is None:
            return order, chosen
        again, kinds = _by_start(found, order), [kind for _, kind in found]
        return (again, kinds) if planned(again, kinds)[0] < horizon else (order, chosen)

    def _solve(
        self, tasks: Sequence[_Asked], pools: Sequence[Pool], horizon: float, least: float
    ) -> list[tuple[int, int | None]] | None:
        """Of each when it starts, in ticks, and on which kind, or on several."""
        try:
            from ortools.sat.python import cp_model
        except ImportError as error:
            raise UserError(
                "placement: CP-SAT needs OR-tools, expected `pip install alto-lora[placement]`"
            ) from error
        model = _Model(cp_model.CpModel(), horizon / _TICKS, _TICKS + len(tasks), least)
        placed = [model.place(task) for task in tasks]
        model.share(pools)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        solver.parameters.max_deterministic_time = self.limit
        status = solver.solve(model.model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return [
            (
                solver.value(start),
                next((kind for kind, here in on if here is None or solver.value(here)), None),
            )
            for start, on in placed
        ]


class _Model:
    """What is to end first, in ticks of so many seconds."""

    def __init__(self, model: "cp_model.CpModel", tick: float, latest: int, least: float) -> None:
        self.model = model
        self._tick = tick
        self._latest = latest
        self._end = model.new_int_var(int(least / tick), latest, "end")
        self._held: defaultdict[int, list[_Holding]] = defaultdict(list)  # by kind

    def place(self, task: _Asked) -> "_Placed":
        """Its start, and its kinds with what tells whether it is there; none if on several."""
        start = self.model.new_int_var(0, self._latest, "start")
        self.model.add_hint(start, round(task.hint.start / self._tick))
        if task.on.together is not None:
            self._place_together(task, start, task.on.together)
            return start, []
        if len(task.on.seconds) == 1:
            ((kind, seconds),) = task.on.seconds
            ticks = self._ticks(seconds)
            self.model.add(start + ticks <= self._end)
            interval = self.model.new_fixed_size_interval_var(start, ticks, "task")
            self._held[kind].append((interval, task.width))
            return start, [(kind, None)]
        on: list[tuple[int, cp_model.IntVar | None]] = []
        literals = []
        for kind, seconds in task.on.seconds:
            here, ticks = self.model.new_bool_var("here"), self._ticks(seconds)
            self.model.add(start + ticks <= self._end).only_enforce_if(here)
            self.model.add_hint(here, kind == task.hint.kind)
            interval = self.model.new_optional_fixed_size_interval_var(start, ticks, here, "task")
            self._held[kind].append((interval, task.width))
            literals.append(here)
            on.append((kind, here))
        self.model.add_exactly_one(literals)
        return start, on

    def _place_together(self, task: _Asked, start: "cp_model.IntVar", seconds: float) -> None:
        ticks = self._ticks(seconds)
        self.model.add(start + ticks <= self._end)
        interval = self.model.new_fixed_size_interval_var(start, ticks, "task")
        taken = [self.model.new_int_var(0, task.width, "taken") for _ in task.on.seconds]
        self.model.add(sum(taken) == task.width)
        for (kind, _), width in zip(task.on.seconds, taken, strict=True):
            self._held[kind].append((interval, width))

    def share(self, pools: Sequence[Pool]) -> None:
        """The GPUs of each kind, once all tasks are placed."""
        for kind, pool in enumerate(pools):
            held = self._held[kind]
            for seconds, width in pool.releases:
                ticks = min(self._ticks(seconds), self._latest)
                held.append((self.model.new_fixed_size_interval_var(0, ticks, "held"), width))
            self.model.add_cumulative([i for i, _ in held], [width for _, width in held], pool.gpus)
        self.model.minimize(self._end)

    def _ticks(self, seconds: float) -> int:
        return max(1, round(seconds / self._tick))


def _by_start(found: Sequence[tuple[int, int | None]], order: Sequence[int]) -> tuple[int, ...]:
    rank = {index: place for place, index in enumerate(order)}
    return tuple(sorted(range(len(found)), key=lambda i: (found[i][0], rank[i])))


def _pool(lane: Sequence[float]) -> Pool:
    held = Counter([until for until in lane if until > 0.0])
    return Pool(len(lane) - held.total(), tuple(held.items()))
