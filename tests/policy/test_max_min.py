"""Max-min shares against GLOP's, level by level."""

import random
from collections.abc import Sequence

import pytest
from ortools.linear_solver import pywraplp

from alto_policy.kinds.max_min import Claim, Way, level_of, max_min


def drawn(dice: random.Random) -> tuple[list[Claim], list[float]]:
    """Tasks of one width on kinds that hold them, a few of which are equally fast."""
    capacities = [float(dice.randint(1, 12)) for _ in range(dice.randint(1, 4))]
    kinds = range(len(capacities))
    claims = []
    for _ in range(dice.randint(1, 9)):
        width = dice.randint(1, int(max(capacities)))
        held = [k for k in kinds if capacities[k] >= width and dice.random() < 0.8]
        ways = tuple(
            Way(dice.choice([0.25, 0.5, 1.0, dice.uniform(0.1, 3.0)]), takes(k, width, len(kinds)))
            for k in held or [max(kinds, key=capacities.__getitem__)]
        )
        claims.append(Claim(ways, dice.randint(1, 4)))
    return claims, capacities


def takes(kind: int, width: int, num_kinds: int) -> tuple[float, ...]:
    return tuple(float(width) if each == kind else 0.0 for each in range(num_kinds))


class Program:
    """The largest level of all claims that are not fixed at one of their own, by GLOP."""

    def __init__(self, claims: Sequence[Claim], capacities: Sequence[float]) -> None:
        self._claims, self._capacities = claims, capacities

    def most(self, fixed: dict[int, float], rising: Sequence[int]) -> float:
        solver = pywraplp.Solver.CreateSolver("GLOP")  # type: ignore[no-untyped-call]  # its stubs
        level = solver.NumVar(0, solver.infinity(), "level")
        used = [0.0] * len(self._capacities)
        for number, claim in enumerate(self._claims):
            times = [solver.NumVar(0, 1, "") for _ in claim.ways]
            solver.Add(sum(times) <= 1)
            gained = sum(way.gain * time for way, time in zip(claim.ways, times, strict=True))
            if number in rising:
                solver.Add(gained >= level)
            elif number in fixed:
                solver.Add(gained >= fixed[number] * (1 - 1e-9))
            for way, time in zip(claim.ways, times, strict=True):
                for kind, taken in enumerate(way.takes):
                    used[kind] += claim.count * taken * time
        for total, capacity in zip(used, self._capacities, strict=True):
            solver.Add(total <= capacity)
        solver.Maximize(level)
        assert solver.Solve() == pywraplp.Solver.OPTIMAL
        return float(level.solution_value())

    def levels(self) -> list[float]:
        """A claim stays behind if it alone cannot rise, all others at what they have for sure."""
        fixed: dict[int, float] = {}
        while rising := [n for n in range(len(self._claims)) if n not in fixed]:
            level = self.most(fixed, rising)
            others = {n: fixed.get(n, level) for n in range(len(self._claims))}
            alone = {n: self.most({**others, n: 0.0}, [n]) for n in rising}
            fixed |= {n: level for n in rising if alone[n] <= level * (1 + 1e-6)}
        return [fixed[n] for n in range(len(self._claims))]


@pytest.mark.parametrize("seed", range(150))
def test_levels_are_those_of_a_solver_of_linear_programs(seed: int) -> None:
    claims, capacities = drawn(random.Random(seed))
    fractions = max_min(claims, capacities)
    levels = [level_of(claim, each) for claim, each in zip(claims, fractions, strict=True)]
    assert levels == pytest.approx(Program(claims, capacities).levels(), rel=1e-5)
    used = [0.0] * len(capacities)
    for claim, each in zip(claims, fractions, strict=True):
        assert min(each) >= 0
        assert sum(each) <= 1 + 1e-9
        for way, fraction in zip(claim.ways, each, strict=True):
            for kind, taken in enumerate(way.takes):
                used[kind] += claim.count * fraction * taken
    assert all(u <= c * (1 + 1e-9) for u, c in zip(used, capacities, strict=True))
