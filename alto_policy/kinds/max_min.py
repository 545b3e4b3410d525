"""Max-min shares of several kinds of GPU, exactly: what solves the program of Gavel's policy.

A claim spends fractions of its time in ways that it may choose from. The least that any claim gains
is made as large as it can be, then the least of those that can gain more, and so on.

The program splits into the claims, which have nothing in common but the GPUs. At a price for each
kind every claim's cheapest plan is known at once, so the prices alone are searched for: Dantzig and
Wolfe's decomposition (1960), by a simplex method with as many rows as there are kinds.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

__all__ = ["Claim", "Way", "level_of", "max_min"]

_NEAR = 1e-9  # of what is compared
_Vector = list[float]
_Plan = list[_Vector]  # of each claim, the fractions of its ways
_Corner = tuple[float, float, int]  # what is gained, its cost, and the way's number


@dataclass(frozen=True, slots=True)
class Way:
    """What is gained by it alone, and the GPUs of each kind that it holds."""

    gain: float
    takes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """So many who are alike, each with these ways, all of which gain something."""

    ways: tuple[Way, ...]
    count: int = 1

    @property
    def most(self) -> float:
        return max(way.gain for way in self.ways)


def level_of(claim: Claim, fractions: Sequence[float]) -> float:
    """What one of them gains."""
    return math.fsum(way.gain * each for way, each in zip(claim.ways, fractions, strict=True))


def max_min(claims: Sequence[Claim], capacities: Sequence[float]) -> list[tuple[float, ...]]:
    """Of each claim, the fraction of time for each of its ways; they sum to 1 at most.

    Each way fits by itself. All rise together; those that have all they can use are left behind,
    then those that could gain more only at the cost of others that have no more than they.
    """
    filling = _Filling(
        [
            replace(claim, ways=tuple(_of_whole(way, capacities) for way in claim.ways))
            for claim in claims
        ]
    )
    while filling.rising:
        filling.rise()
    return [tuple(fractions) for fractions in filling.plan]


def _of_whole(way: Way, capacities: Sequence[float]) -> Way:
    return Way(way.gain, tuple(n / whole for n, whole in zip(way.takes, capacities, strict=True)))


class _Filling:
    """Of ways that take shares of the kinds."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._claims = claims
        self._most = [claim.most for claim in claims]
        self._levels = [0.0] * len(claims)  # of those that do not rise any more
        self.rising = set(range(len(claims)))
        self.plan: _Plan = [[0.0] * len(claim.ways) for claim in claims]
        self._level = 0.0

    def _demands(self, level: float) -> _Vector:
        return [
            min(level, most) if number in self.rising else own
            for number, (most, own) in enumerate(zip(self._most, self._levels, strict=True))
        ]

    def rise(self) -> None:
        """As far as all that rise can, and leave at least one of them behind."""
        marks = sorted({self._most[number] for number in self.rising})
        low, high = bisect_right(marks, self._level), len(marks)  # of marks that may be reached
        tried, last = low, None
        while low < high:
            step = self._towards(marks[tried])
            if step.is_reached:
                self._level, self.plan, low, last = marks[tried], step.plan, tried + 1, None
                tried = high - 1 if high == len(marks) else (low + high) // 2
            else:
                high, last = tried, step
                tried = (low + high) // 2
        if high < len(marks):  # from the last mark that was reached demands rise evenly
            last = last or self._towards(marks[high])
            self._level += last.share * (marks[high] - self._level)
            self.plan = last.plan
        self._leave_behind(last)

    def _towards(self, level: float) -> "_Step":
        now, then = self._demands(self._level), self._demands(level)
        return _furthest(self._claims, now, then, self.plan)

    def _leave_behind(self, last: "_Step | None") -> None:
        done = {n for n in self.rising if self._most[n] <= self._level * (1 + _NEAR)}
        if last is not None:
            at = self._demands(self._level)
            slopes = {n: _Cheapest(self._claims[n], last.prices).slopes(at[n]) for n in self.rising}
            steepest = max(after for _, after in slopes.values())
            short = {n for n in slopes if slopes[n][0] > _NEAR * steepest}
            done |= short or {n for n in slopes if slopes[n][1] > _NEAR * steepest}
        for number in done:
            self._levels[number] = min(self._level, self._most[number])
        self.rising -= done


@dataclass(frozen=True, slots=True)
class _Step:
    share: float  # of the way from the first demands to the others
    plan: _Plan
    prices: _Vector

    @property
    def is_reached(self) -> bool:
        return self.share >= 1 - _NEAR


class _Cheapest:
    """The cheapest ways to gain, at prices of the kinds: the corners of a convex line from none."""

    def __init__(self, claim: Claim, prices: Sequence[float]) -> None:
        points = [
            (way.gain, _product(prices, way.takes), number) for number, way in enumerate(claim.ways)
        ]
        corners = [(0.0, 0.0, -1)]
        for point in sorted(points):
            if point[0] == corners[-1][0]:
                continue  # the cheaper of equals came first
            while len(corners) > 1 and _is_above(corners[-2], corners[-1], point):
                corners.pop()
            corners.append(point)
        self.corners = corners
        self.rises = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(corners)]

    def fractions(self, level: float, count: int) -> _Vector:
        found = [0.0] * count
        for (low, _, before), (high, _, after) in pairwise(self.corners):
            if level <= high or high == self.corners[-1][0]:
                found[after] = min(1.0, (level - low) / (high - low))
                if before >= 0:
                    found[before] = 1 - found[after]
                break
        return found

    def bends(self, low: float, high: float, count: int) -> list[tuple[float, float]]:
        """Between these levels: shares of the way, and how much steeper the cost is from there."""
        found, before = [], 0.0
        for (start, _, _), (end, _, _), rise in zip(
            self.corners, self.corners[1:], self.rises, strict=False
        ):
            if end > low * (1 + _NEAR) and start < high:
                cost = count * rise * (high - low)
                found.append((max(0.0, (start - low) / (high - low)), cost - before))
                before = cost
        return found

    def slopes(self, level: float) -> tuple[float, float]:
        """Of the cost, below the level and above it."""
        below = above = self.rises[-1]
        for (end, _, _), rise in zip(self.corners[:0:-1], self.rises[::-1], strict=True):
            if level <= end * (1 + _NEAR):
                below = rise
            if level < end * (1 - _NEAR):
                above = rise
        return below, above


def _is_above(a: _Corner, b: _Corner, c: _Corner) -> bool:
    """Whether b is on the line from a to c, or above it."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def _furthest(
    claims: Sequence[Claim], now: Sequence[float], then: Sequence[float], plan: _Plan
) -> _Step:
    """How far demands can go from `now`, which the plan meets, to `then`."""
    num_kinds = len(claims[0].ways[0].takes)
    first = _usage(claims, plan, num_kinds)
    simplex = _Simplex([*(max(0.0, 1 - used) for used in first), 1.0])
    plans: list[tuple[float, _Plan] | None] = [None] * (num_kinds + 1)  # of the basis
    while True:
        prices = simplex.prices()
        loose = min(range(len(prices)), key=prices.__getitem__)
        if prices[loose] < -_NEAR:
            unit = [float(row == loose) for row in range(len(prices))]
            plans[simplex.enter(unit, 0.0)] = None
            continue
        *prices, even = [max(0.0, price) for price in prices]
        share, found = _best(claims, now, then, prices)
        usage = _usage(claims, found, num_kinds)
        column = [u - f for u, f in zip(usage, first, strict=True)]
        if share - even - _product(prices, column) <= _NEAR:
            break
        plans[simplex.enter([*column, 1.0], share)] = share, found
    basis = [(w, *each) for w, each in zip(simplex.values, plans, strict=True) if each is not None]
    rest = max(0.0, 1 - math.fsum(weight for weight, _, _ in basis))
    mixed = _mixed([(rest, plan), *((weight, found) for weight, _, found in basis)])
    return _Step(math.fsum(weight * share for weight, share, _ in basis), mixed, prices)


def _best(
    claims: Sequence[Claim], now: Sequence[float], then: Sequence[float], prices: _Vector
) -> tuple[float, _Plan]:
    """The share of the way that is worth most at these prices, and the cheapest plan for it."""
    lines = [_Cheapest(claim, prices) for claim in claims]
    bends: list[tuple[float, float]] = []  # shares at which another part costs so much more
    for claim, line, low, high in zip(claims, lines, now, then, strict=True):
        if high > low:
            bends += line.bends(low, high, claim.count)
    share, cost = 1.0, 0.0
    for at, more in sorted(bends):
        cost += more
        if cost >= 1:
            share = at
            break
    levels = [low + share * (high - low) for low, high in zip(now, then, strict=True)]
    return share, [
        line.fractions(level, len(claim.ways))
        for claim, line, level in zip(claims, lines, levels, strict=True)
    ]


def _usage(claims: Sequence[Claim], plan: _Plan, num_kinds: int) -> _Vector:
    used = [0.0] * num_kinds
    for claim, fractions in zip(claims, plan, strict=True):
        for way, fraction in zip(claim.ways, fractions, strict=True):
            if fraction:
                for kind, taken in enumerate(way.takes):
                    used[kind] += claim.count * fraction * taken
    return used


def _mixed(weighted: Sequence[tuple[float, _Plan]]) -> _Plan:
    whole = [[0.0] * len(fractions) for fractions in weighted[0][1]]
    for weight, plan in weighted:
        for mine, theirs in zip(whole, plan, strict=True):
            for number, fraction in enumerate(theirs):
                mine[number] += weight * fraction
    return whole


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


class _Simplex:
    """The revised method; its columns come one at a time, and at first all are slack.

    Of equal ratios the lexicographically least row leaves, so that it ends (Dantzig, Orden and
    Wolfe 1955).
    """

    def __init__(self, rights: Sequence[float]) -> None:
        size = len(rights)
        self.values = list(rights)
        self._inverse = [[float(row == column) for column in range(size)] for row in range(size)]
        self._worths = [0.0] * size

    def prices(self) -> _Vector:
        return [_product(self._worths, column) for column in zip(*self._inverse, strict=True)]

    def enter(self, column: Sequence[float], worth: float) -> int:
        """The row of the basis that it takes."""
        entering = [_product(row, column) for row in self._inverse]
        leaving = min(
            (row for row, part in enumerate(entering) if part > _NEAR),
            key=lambda row: [
                each / entering[row] for each in (self.values[row], *self._inverse[row])
            ],
        )
        pivot = entering[leaving]
        self.values[leaving] /= pivot
        self._inverse[leaving] = [each / pivot for each in self._inverse[leaving]]
        for row, part in enumerate(entering):
            if row != leaving:
                self.values[row] = max(0.0, self.values[row] - part * self.values[leaving])
                self._inverse[row] = [
                    own - part * gone
                    for own, gone in zip(self._inverse[row], self._inverse[leaving], strict=True)
                ]
        self._worths[leaving] = worth
        return leaving
